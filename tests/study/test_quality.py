"""What a variant costs: counted by hand where it can be, and splits that share nothing."""

from __future__ import annotations

import numpy as np
import pytest

from unitrain.spec.errors import InputError
from unitrain.study.quality import Task, judge
from unitrain.study.splits import Samples, cut, make_splits


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def one_hot(classes, width=3):
    return {"y": np.eye(width)[np.asarray(classes)] * 5.0}


def samples(targets) -> Samples:
    return Samples({"x": np.zeros((len(targets), 1))}, np.asarray(targets))


def test_accuracy_is_counted_in_pairs():
    target = [0] * 60 + [1] * 40
    reference = [0] * 60 + [1] * 30 + [2] * 10  # 90 right
    found = [1] * 4 + [0] * 56 + [1] * 32 + [2] * 8  # 88 right: 4 lost, 2 won
    quality = judge(Task("y", "classes", True), samples(target), one_hot(found), one_hot(reference), 0.01, generator())
    assert quality.measure == "accuracy"
    assert quality.value.value == 0.88
    assert quality.gain.value == pytest.approx(-0.02)
    assert quality.margin == pytest.approx(0.009)
    # Exact binomial, 2 of 6: 2 * (1 + 6 + 15) / 64.
    assert quality.p_value == pytest.approx(0.6875)
    assert quality.agreement == 0.94
    assert quality.verdict == "open"


def test_a_large_loss_is_inferior_and_a_sure_tie_is_not():
    target = np.zeros(4000, int)
    reference = one_hot(np.zeros(4000, int))
    worse = one_hot(np.r_[np.ones(200, int), np.zeros(3800, int)])
    task = Task("y", "classes", True)
    assert judge(task, samples(target), worse, reference, 0.01, generator()).verdict == "inferior"
    assert judge(task, samples(target), reference, reference, 0.01, generator()).verdict == "not inferior"


def test_tokens_that_are_ignored_do_not_count():
    target = np.array([[0, 1, 9], [2, 9, 9]] * 50)
    found = one_hot(np.array([[0, 0, 0], [2, 0, 0]] * 50))
    quality = judge(Task("y", "classes", True, ignored=9), samples(target), found, found, 0.01, generator())
    assert quality.measure == "token accuracy"
    assert quality.value.value == pytest.approx(2 / 3)
    assert quality.gain.value == 0.0
    assert quality.verdict == "not inferior"


def test_errors_are_paired():
    rng = np.random.default_rng(1)
    target = rng.normal(size=(500, 1))
    reference = {"y": target + rng.normal(size=(500, 1))}
    better = {"y": target + 0.999 * (reference["y"] - target)}
    quality = judge(Task("y", "numbers", True), samples(target), better, reference, 0.01, generator())
    before = float(np.sqrt(np.square(reference["y"] - target).mean()))
    assert quality.measure == "rmse"
    # Unpaired, an interval of 500 errors would be a hundred times as wide as this gain.
    assert quality.gain.low == pytest.approx(0.001 * before, rel=0.2)
    assert quality.verdict == "not inferior"


def test_without_labels_it_is_fidelity():
    reference = one_hot([0, 1, 2, 0])
    found = one_hot([0, 1, 2, 1])
    quality = judge(Task("y", "classes", False), samples([0] * 4), found, reference, 0.01, generator())
    assert quality.measure == "agreement"
    assert quality.value.value == 0.75
    numbers = judge(
        Task("y", "numbers", False),
        samples([0] * 4),
        {"y": np.full((4, 2), 1.1)},
        {"y": np.ones((4, 2))},
        0.01,
        generator(),
    )
    assert numbers.measure == "relative error"
    assert numbers.value.value == pytest.approx(0.1)
    assert numbers.signal_to_noise == pytest.approx(20.0)
    assert numbers.verdict == "inferior"


def drawn(count, seed) -> Samples:
    return Samples({"x": np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)})


def test_overlap_is_refused():
    calibration, selection, test = (drawn(5, seed) for seed in (1, 2, 3))
    test.inputs["x"][2] = selection.inputs["x"][4]
    with pytest.raises(InputError) as caught:
        make_splits(None, calibration, selection, test, drop=False)
    problem = caught.value.problems[0]
    assert problem.message == "the test samples are not apart from the selection samples"
    assert problem.found == "1 of 5 stand in both, the first is sample 2"


def test_twins_are_left_out_of_drawn_splits():
    calibration, selection, test = (drawn(5, seed) for seed in (1, 2, 3))
    train = {"x": np.concatenate([test.inputs["x"][:2], drawn(4, 4).inputs["x"]])}
    splits = make_splits(train, calibration, selection, test, drop=True)
    assert splits.counts == {"train": 6, "calibration": 5, "selection": 5, "test": 3}
    assert splits.notes == ("2 test samples were left out: they stand in another split too",)
    assert len(set(splits.hashes.values())) == 4


def test_cutting_uses_every_sample_once():
    parts = cut(drawn(101, 5), {"calibration": 0.1, "selection": 0.45, "test": 0.45}, generator())
    assert {name: len(part) for name, part in parts.items()} == {"calibration": 10, "selection": 46, "test": 45}
    assert len(np.unique(np.concatenate([part.inputs["x"] for part in parts.values()]), axis=0)) == 101
