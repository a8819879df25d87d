"""One small trained run, shared by what studies it."""

from __future__ import annotations

from pathlib import Path

import pytest

from unitrain.train.fit import fit

RECIPE = """\
name: small
model:
  inputs: {image: {shape: [8, 8, 1]}}
  layers:
    - {type: conv2d, name: conv1, filters: 8, kernel_size: 3, padding: same, use_bias: false}
    - {type: batch_norm, name: norm1}
    - {type: relu, name: relu1}
    - {type: conv2d, name: conv2, filters: 32, kernel_size: 3, strides: 2, activation: relu}
    - {type: flatten, name: flat}
    - {type: dense, name: digit, units: 10}
data: {source: digits, split: {validation: 0.2, test: 0.2}}
loss: cross_entropy
optimizer: {type: adam, lr: 0.005}
metrics: [accuracy]
training: {epochs: 4, batch_size: 64}
study: {rounds: 5, batch: 4, calibration_samples: 64, finetune_epochs: 1}
"""


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.yaml").write_text(RECIPE)
    return fit(folder / "small.yaml", out=folder / "run").folder.path
