"""Time to an accuracy: all sides reach it after the same epochs, and a goal too far is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from unitrain.bench import accuracy
from unitrain.bench.accuracy import GOALS, goals, load_goal, reach
from unitrain.bench.models import MODELS
from unitrain.bench.runner import Conditions
from unitrain.bench.sides import choose_sides
from unitrain.spec.sources.idx import FashionMnist
from unitrain.train.session import prepare_data


def test_every_named_model_has_a_goal():
    assert set(GOALS) == set(MODELS)
    assert list(goals(["cnn", "mine"])) == ["cnn"]
    assert list(goals(["mlp", "lenet5"], quick=True)) == ["mlp"]


@pytest.mark.parametrize("name", GOALS)
def test_data_fit_the_models(name):
    goal = GOALS[name]
    if goal.data == "fashion_mnist" and not Path(FashionMnist().folder).is_dir():
        pytest.skip("Fashion-MNIST is not installed")
    loaded = load_goal(name, goal, 0)
    prepared = prepare_data(loaded)
    images = next(iter(prepared.train.inputs.values()))
    assert images.shape[1:] == next(iter(loaded.graph.inputs.values())).shape
    assert len(prepared.validation) == round(0.2 * (len(prepared.train) + len(prepared.validation)))


def test_all_sides_take_the_same_epochs():
    sides = choose_sides(["numpy", "torch"], ["cpu"], 1).by_device["cpu"]
    case = reach("mlp", replace(GOALS["mlp"], accuracy=0.8), sides, "cpu", Conditions(), quick=True)
    numpy, torch = case.rows
    assert numpy.extra["epochs"] == torch.extra["epochs"] >= 1
    assert numpy.extra["accuracy"] == torch.extra["accuracy"] >= 0.8
    assert not numpy.failure
    assert numpy.claim == "baseline"
    assert torch.ratio.value > 0.0
    assert case.band >= 1.0
    assert f"after {numpy.extra['epochs']} epoch" in numpy.why


def test_a_goal_that_is_not_reached_is_a_failure(monkeypatch):
    monkeypatch.setattr(accuracy, "EPOCHS", 1)
    sides = choose_sides(["numpy"], ["cpu"], 1).by_device["cpu"]
    case = reach("mlp", replace(GOALS["mlp"], accuracy=1.0), sides, "cpu", Conditions(), quick=True)
    assert case.rows[0].failure.endswith("% in 1 epoch")
    assert case.rows[0].seconds is None
