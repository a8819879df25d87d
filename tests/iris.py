"""A small model with layers that a run must remember something of, for tests that train it, each in its own way."""

_RECIPE = """\
name: iris
model:
  inputs: {features: {shape: [4]}}
  layers:
    - {type: dense, name: hidden, units: 16, activation: tanh}
    - {type: batch_norm, name: norm}
    - {type: dropout, name: dropout, rate: 0.1}
    - {type: dense, name: species, units: 3}
data: {source: iris}
loss: cross_entropy
optimizer: {type: adam, lr: 0.02, ema: 0.8}
deterministic: true
"""


def iris_recipe(rest: str) -> str:
    """Return a recipe of the set iris; ``rest`` says how it is trained."""
    return _RECIPE + rest
