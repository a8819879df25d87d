"""What the user names becomes what is verified: models, recipes, run folders, and mistakes in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unitrain.spec.errors import InputError
from unitrain.train.fit import fit
from unitrain.verify.source import read_subject
from unitrain.weights.store import load_tensors

MODEL = """\
arguments: {width: 5}
inputs: {features: {shape: [4], low: -1.0, high: 3.0}}
layers:
  - {type: dense, name: hidden, units: $width, activation: relu}
  - {type: dense, name: species, units: 3}
"""
RECIPE = """\
name: flowers
model: {file: net.yaml}
data: {source: iris, split: {validation: 0.2, test: 0}}
loss: cross_entropy
optimizer: {type: sgd, lr: 0.05}
metrics: [accuracy]
training: {epochs: 2, batch_size: 12, accumulate: 2}
seed: 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.yaml").write_text(MODEL)
    (tmp_path / "flowers.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_is_named_by_its_file_and_gets_drawn_data(folder):
    subject = read_subject("net.yaml", ["width=7"])
    assert subject.name == "net"
    assert not subject.real
    assert subject.weights["hidden.kernel"].shape == (4, 7)
    drawn = subject.data.inputs["features"]
    assert drawn.min() >= -1.0
    assert drawn.max() <= 3.0
    assert subject.losses["species"].loss.type == "mse"


def test_a_seed_draws_another_model_and_other_data(folder):
    first, again, other = (read_subject("net.yaml", seed=seed) for seed in (None, 0, 1))
    for name, array in first.weights.items():
        assert np.array_equal(array, again.weights[name])
        assert not np.array_equal(array, other.weights[name])
    assert not np.array_equal(first.data.inputs["features"], other.data.inputs["features"])


def test_a_recipe_brings_its_data_and_training(folder):
    subject = read_subject("flowers.yaml", ["optimizer.lr=0.2"])
    assert (subject.name, subject.seed, subject.batch_size, subject.accumulate) == ("flowers", 3, 12, 2)
    assert subject.real
    assert subject.losses["species"].loss.type == "cross_entropy"
    assert subject.optimizer.type == "sgd"
    assert subject.rates(0, 3).tolist() == [0.2, 0.2, 0.2]
    assert len(subject.data) == 120
    assert set(np.unique(subject.data.targets["species"])) == {0, 1, 2}
    assert read_subject("flowers.yaml", seed=8).seed == 8


def test_a_run_brings_its_weights(folder):
    fit("flowers.yaml", backend="numpy", out="run")
    subject = read_subject("run")
    kept = load_tensors(Path("run") / "weights.safetensors")
    assert subject.weights.keys() == kept.keys()
    for name, array in kept.items():
        assert np.array_equal(subject.weights[name], array)
    # The same samples as its recipe's: the run's data are those it was trained on.
    recipe = read_subject("flowers.yaml")
    assert np.array_equal(subject.data.inputs["features"], recipe.data.inputs["features"])

    (folder / "run" / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="no weights yet"):
        read_subject("run")


@pytest.mark.parametrize(
    ("source", "settings", "told"),
    [
        ("net.yml", [], ["no such file or run folder", "did you mean 'net.yaml'?"]),
        ("nowhere/net.yaml", [], ["no such file or run folder"]),
        ("empty", [], ["the folder is not a run"]),
        ("other.yaml", [], ["neither a model nor a recipe", "other.yaml:1"]),
        ("net.yaml", ["widht=3"], ["widht", "did you mean 'width'?"]),
        ("net.yaml", ["width"], ["an argument is given as name=value"]),
        ("flowers.yaml", ["optimizer.rate=3"], ["--set optimizer.rate=3", "unknown field 'rate'"]),
    ],
)
def test_mistakes_are_told(folder, source, settings, told):
    (folder / "empty").mkdir()
    (folder / "other.yaml").write_text("colour: red\n")
    with pytest.raises(InputError) as caught:
        read_subject(source, settings)
    for text in told:
        assert text in str(caught.value)
