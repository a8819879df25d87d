"""Reading recipes: overrides, references to models, what must fit together, and where an error is said to lie."""

from __future__ import annotations

import pytest

from unitrain.spec.base import validate
from unitrain.spec.errors import InputError
from unitrain.spec.recipe import Recipe
from unitrain.spec.yaml import parse_yaml
from unitrain.train.recipe import load_recipe

MODEL = """\
arguments: {classes: 3, width: 8}
inputs: {x: {shape: [4]}}
layers:
  - {type: dense, name: hidden, units: $width, activation: tanh}
  - {type: dense, name: logits, units: $classes}
"""
RECIPE = """\
name: iris
model: {file: model.yaml, width: 16}
data: {source: iris}
loss: cross_entropy
optimizer: adam
metrics: [accuracy]
training: {epochs: 2, batch_size: 16}
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "model.yaml").write_text(MODEL)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_arguments_reach_the_model(recipe):
    loaded = load_recipe(recipe)
    assert loaded.graph.shape("hidden") == (16,)
    assert loaded.model.arguments == {"classes": 3, "width": 16}
    assert load_recipe(recipe, ["model.width=5"]).graph.shape("hidden") == (5,)


def test_a_recipe_dumps_to_yaml_that_loads_equal(recipe):
    loaded = load_recipe(recipe, ["schedule.type=cosine", "optimizer.clip_norm=1", "data.augment=[]"]).recipe
    assert validate(Recipe, parse_yaml(loaded.to_yaml())) == loaded


def test_overrides_open_short_forms(recipe):
    loaded = load_recipe(recipe, ["optimizer.lr=0.5", "data.source.type=wine", "training.early_stopping.patience=3"])
    assert loaded.recipe.optimizer.type == "adam"
    assert loaded.recipe.optimizer.lr == 0.5
    assert loaded.recipe.training.early_stopping.patience == 3
    assert load_recipe(recipe, ["schedule=null"]).recipe.schedule is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.lr=fast", ["--set optimizer.lr=fast", "a number"]),
        ("optimizr.lr=1", ["--set optimizr.lr=1", "did you mean 'optimizer'?"]),
        ("model.clases=7", ["--set model.clases=7", "did you mean 'classes'?"]),
        ("metrics.3=auc", ["the list has no such entry", "0 to 0"]),
        ("name.x.y=1", ["name"]),
        ("training.epochs=-1", ["greater than 0"]),
        ("novalue", ["field.path=value"]),
        ("loss=mean_squared", ["unknown type 'mean_squared'"]),
        ("training.keep_best=acuracy", ["did you mean 'accuracy'?"]),
        ("training.early_stopping.monitor=auc", ["unknown value to monitor 'auc'", "loss, accuracy"]),
        ("metrics.0.output=logit", ["did you mean 'logits'?"]),
    ],
)
def test_a_wrong_override_is_named(recipe, override, expected):
    with pytest.raises(InputError) as caught:
        load_recipe(recipe, [override])
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("optimizer: adam", "optimizer: {type: adam, learning_rate: 1}", 5, "unknown field 'learning_rate'"),
        ("file: model.yaml", "file: modl.yaml", 2, "did you mean 'model.yaml'?"),
        ("width: 16", "witdh: 16", 2, "did you mean 'width'?"),
        ("loss: cross_entropy", "loss: {other: {loss: mse}}", 4, "unknown output of the model 'other'"),
    ],
)
def test_errors_give_the_line_of_the_recipe(recipe, old, new, line, expected):
    recipe.write_text(RECIPE.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_recipe(recipe)
    assert f"recipe.yaml:{line}:" in str(caught.value)
    assert expected in str(caught.value)


def test_an_error_in_the_model_gives_its_own_line(recipe):
    (recipe.parent / "model.yaml").write_text(MODEL.replace("activation: tanh", "activation: tahn"))
    with pytest.raises(InputError) as caught:
        load_recipe(recipe)
    assert "model.yaml:4: layers[0].activation" in str(caught.value)
    assert "did you mean 'tanh'?" in str(caught.value)


def test_an_inline_model_and_several_outputs(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("""\
model:
  inputs: {x: {shape: [4]}}
  layers:
    - {type: dense, name: body, units: 8}
    - {type: dense, name: kind, units: 3, inputs: body}
    - {type: dense, name: size, units: 1, inputs: body}
  outputs: [kind, size]
data:
  source: {type: table, file: t.csv, target: {kind: species, size: length}}
loss:
  kind: {loss: cross_entropy}
  size: {loss: mse, factor: 0.5}
optimizer: sgd
metrics: [{type: accuracy, output: kind}, {type: r2, output: size}]
""")
    loaded = load_recipe(path)
    assert {name: loss.factor for name, loss in loaded.losses.items()} == {"kind": 1.0, "size": 0.5}
    path.write_text(path.read_text().replace("{type: accuracy, output: kind}", "accuracy"))
    with pytest.raises(InputError, match="must name its output"):
        load_recipe(path)
    path.write_text(
        path.read_text().replace("loss:\n  kind: {loss: cross_entropy}\n  size: {loss: mse, factor: 0.5}", "loss: mse")
    )
    with pytest.raises(InputError, match="several outputs needs a loss for each"):
        load_recipe(path)


def test_the_model_line_is_given_inside_an_inline_model(tmp_path):
    path = tmp_path / "inline.yaml"
    path.write_text("""\
model:
  inputs: {x: {shape: [4]}}
  layers:
    - {type: dense, name: a, units: 8}
    - {type: conv2d, name: b, filters: 8, kernel_size: 3}
data: {source: iris}
loss: mse
optimizer: sgd
""")
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert "inline.yaml:5: layers[1]" in str(caught.value)
    assert "[batch, 8]" in str(caught.value)
