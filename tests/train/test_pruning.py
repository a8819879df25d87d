"""Weights that become zero while a model trains, and stay zero, on every backend; starting from weights at hand."""

from __future__ import annotations

import numpy as np
import pytest

from unitrain.spec.errors import InputError
from unitrain.spec.pruning import PruningSpec
from unitrain.train.fit import fit, resume
from unitrain.train.pruner import Pruner
from unitrain.weights.store import load_tensors

RECIPE = """\
name: iris
model:
  inputs: {features: {shape: [4]}}
  layers:
    - {type: dense, name: hidden, units: 16, activation: tanh}
    - {type: dense, name: species, units: 3}
data: {source: iris}
loss: cross_entropy
optimizer: {type: adamw, lr: 0.02, weight_decay: 0.01}
metrics: [accuracy]
training: {epochs: 8, batch_size: 16}
"""
GRADUAL = ["pruning.sparsity=0.75", "pruning.every=3", "pruning.begin=2"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("iris") / "iris.yaml"
    path.write_text(RECIPE)
    return path


def zeros(weights):
    return {name: float(np.mean(weights[f"{name}.kernel"] == 0.0)) for name in ("hidden", "species")}


@pytest.mark.parametrize("backend", ["numpy", "torch", "keras"])
@pytest.mark.parametrize("optimizer", [[], ["optimizer={type: sgd, lr: 0.1, momentum: 0.9, ema: 0.9, clip_norm: 1}"]])
def test_as_many_weights_are_zero_in_the_end_as_asked_for(recipe, tmp_path, backend, optimizer):
    result = fit(recipe, backend=backend, out=tmp_path / "run", overrides=[*GRADUAL, *optimizer])
    weights = load_tensors(result.folder.weights)
    assert zeros(weights) == {"hidden": 0.75, "species": 0.75}
    assert np.count_nonzero(weights["hidden.bias"]) == 16
    # Those that are left have gone on learning after the last removal.
    assert result.end.test["accuracy"] > 0.7


def test_the_fraction_rises_as_published(recipe):
    pruner = Pruner(PruningSpec(sparsity=0.8, begin=10, end=110, every=20), 200)
    due = [update for update in range(200) if pruner.is_due(update)]
    assert due == [10, 30, 50, 70, 90, 110]
    # Zhu & Gupta 2017, equation 1, with an initial sparsity of 0, in the paper's form.
    paper = [0.8 + (0.0 - 0.8) * (1 - (update - 10) / (5 * 20)) ** 3 for update in due]
    assert [pruner.sparsity(update) for update in due] == pytest.approx(paper, abs=1e-15)
    assert pruner.sparsity(9) == 0.0
    assert pruner.sparsity(150) == 0.8


def test_blocks_end_where_weights_go():
    pruner = Pruner(PruningSpec(sparsity=0.8, begin=10, end=25, every=10), 40)
    assert [pruner.room(update) for update in (0, 9, 10, 15, 20, 24, 25, 39)] == [10, 1, 10, 5, 5, 1, None, None]


def test_a_run_that_goes_on_is_the_same_run(recipe, tmp_path):
    whole = fit(recipe, out=tmp_path / "whole", overrides=GRADUAL)
    limited = [*GRADUAL, "pruning.end=48"]
    parted = fit(recipe, out=tmp_path / "parted", overrides=[*limited, "training.max_steps=50"])
    assert parted.end.reason == "step limit"
    resume(parted.folder.path, overrides=["training.max_steps=null"])
    again = fit(recipe, out=tmp_path / "again", overrides=limited)
    one, two = (run.folder.checkpoints.newest().weights for run in (parted, again))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert zeros(load_tensors(whole.folder.weights)) == {"hidden": 0.75, "species": 0.75}


def test_no_weights_are_the_best_before_they_are_sparse(recipe, tmp_path):
    end = fit(recipe, out=tmp_path / "run", overrides=["pruning.sparsity=0.5"]).end
    assert end.best_epoch is None or end.best_epoch >= 6


@pytest.mark.parametrize("backend", ["numpy", "torch", "keras"])
def test_a_pruned_model_keeps_its_zeros(recipe, tmp_path, backend):
    pruned = fit(recipe, out=tmp_path / "pruned", overrides=["pruning={pattern: [2, 4]}"]).folder
    before = load_tensors(pruned.weights)
    four = before["hidden.kernel"].reshape(1, 4, 16) != 0.0
    assert (four.sum(axis=1) == 2).all()
    settings = ["pruning={}", f"initial_weights={pruned.path}", "training.epochs=2", "seed=7"]
    after = load_tensors(fit(recipe, backend=backend, out=tmp_path / "tuned", overrides=settings).folder.weights)
    for name in ("hidden.kernel", "species.kernel"):
        assert np.array_equal(after[name] == 0.0, before[name] == 0.0)
        assert not np.array_equal(after[name], before[name])


def test_training_starts_from_the_weights_that_are_named(recipe, tmp_path):
    first = fit(recipe, out=tmp_path / "first").folder
    settings = [f"initial_weights={first.weights}", "optimizer.lr=1e-30", "optimizer.weight_decay=0"]
    second = fit(recipe, out=tmp_path / "second", overrides=settings).folder
    one, two = load_tensors(first.weights), load_tensors(second.weights)
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["initial_weights=nowhere"], "initial_weights"),
        (["pruning.sparsity=1.5"], "pruning.sparsity"),
        (["pruning={sparsity: 0.5, pattern: [2, 4]}"], "set sparsity or pattern"),
        (["pruning={pattern: [4, 4]}"], "keeps 4 of 4"),
        (["pruning={sparsity: 0.5, begin: 9, end: 4}"], "before begin"),
        (["pruning={sparsity: 0.5, end: 4000}"], "the updates of the run"),
        (["pruning.sparsty=0.5"], "did you mean 'sparsity'"),
    ],
)
def test_mistakes_are_explained(recipe, tmp_path, settings, said):
    with pytest.raises(InputError, match=said):
        fit(recipe, out=tmp_path / "run", overrides=settings)
