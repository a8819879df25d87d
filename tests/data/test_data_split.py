"""Splits: a partition always, proportions kept, groups kept together; leaks found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitrain.data.split import divide, fractions, stratified_order
from unitrain.spec.data import Split
from unitrain.spec.errors import InputError

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def check_partition(parts: dict[str, Any], count: int) -> None:
    together = np.concatenate(list(parts.values()))
    assert sorted(together.tolist()) == list(range(count))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(20, 300),
    validation=st.floats(0.06, 0.4),
    test=st.floats(0.06, 0.4),
    classes=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_parts_are_disjoint_and_complete(count: int, validation: float, test: float, classes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count) % classes) if classes else None
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    parts = divide(count, shares, np.random.default_rng(seed), labels)
    check_partition(parts, count)
    for part, index in parts.items():
        # Each of the two cuts is rounded: at most half a sample each.
        assert abs(len(index) - shares[part] * count) <= 1 + 1e-9
    again = divide(count, shares, np.random.default_rng(seed), labels)
    assert all(np.array_equal(parts[part], again[part]) for part in parts)


@settings(max_examples=60, deadline=None)
@given(
    members=st.lists(st.integers(8, 60), min_size=2, max_size=6),
    seed=st.integers(0, 2**32 - 1),
)
def test_stratified_parts_keep_the_proportions(members: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(members)), members))
    parts = divide(len(labels), SHARES, np.random.default_rng(seed), labels)
    check_partition(parts, len(labels))
    for part, index in parts.items():
        counts = np.bincount(labels[index], minlength=len(members))
        # Two cuts, each within one sample of the class's share.
        assert (np.abs(counts - SHARES[part] * np.array(members)) <= 2).all()


def test_stratified_is_exact_where_it_divides_evenly_and_differs_by_seed() -> None:
    labels = np.repeat([0, 1, 2], [100, 200, 700])
    shares = {"train": 0.8, "test": 0.2}
    first = divide(1000, shares, np.random.default_rng(0), labels)
    assert np.bincount(labels[first["test"]]).tolist() == [20, 40, 140]
    second = divide(1000, shares, np.random.default_rng(1), labels)
    assert np.bincount(labels[second["test"]]).tolist() == [20, 40, 140]
    assert not np.array_equal(first["test"], second["test"])


def test_every_sample_is_as_likely_to_be_tested() -> None:
    labels = np.array([0, 1] * 10)
    chosen = np.zeros(20)
    for seed in range(2000):
        chosen[divide(20, {"train": 0.75, "test": 0.25}, np.random.default_rng(seed), labels)["test"]] += 1
    # Binomial(2000, 1/4): sigma 19.4; five of them.
    assert np.abs(chosen - 500).max() < 97


def test_a_stretch_of_the_stratified_order_holds_all_classes_in_proportion() -> None:
    labels = np.repeat([0, 1], [30, 90])
    order = labels[stratified_order(labels, np.random.default_rng(0))]
    assert order[:40].tolist().count(0) == 10


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=3, max_size=30),
    stratified=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_groups_stay_together(sizes: list[int], stratified: bool, seed: int) -> None:
    generator = np.random.default_rng(seed)
    groups = generator.permutation(np.repeat([f"g{i}" for i in range(len(sizes))], sizes))
    labels = generator.integers(2, size=len(groups)) if stratified else None
    parts = divide(len(groups), SHARES, np.random.default_rng(seed), labels, groups)
    check_partition(parts, len(groups))
    owners = [set(groups[index]) for index in parts.values()]
    assert all(owners)
    assert sum(len(owner) for owner in owners) == len(sizes)


def test_many_groups_come_near_the_fractions_and_the_classes() -> None:
    generator = np.random.default_rng(5)
    groups = np.repeat(np.arange(200).astype(str), 10)
    labels = (generator.random(200) < 0.2).astype(int).repeat(10)
    parts = divide(2000, SHARES, generator, labels, groups)
    for part, index in parts.items():
        assert abs(len(index) / 2000 - SHARES[part]) < 0.02
        assert abs(labels[index].mean() - labels.mean()) < 0.03


def test_given_parts_take_no_fraction() -> None:
    assert fractions(Split(), {}) == pytest.approx(SHARES)
    assert fractions(Split(), {"train": 0, "test": 0}) == pytest.approx({"train": 0.85, "validation": 0.15})
    assert fractions(Split(validation=0.0), {"train": 0, "test": 0}) == {"train": 1.0}
    assert fractions(Split(train=0.6, validation=0.2, test=0.2), {}) == {
        "train": 0.6,
        "validation": 0.2,
        "test": 0.2,
    }


@pytest.mark.parametrize(
    ("run", "parts"),
    [
        (lambda: fractions(Split(train=0.5, test=0.2), {}), ["must sum to 1", "train 0.5 + validation 0.15"]),
        (lambda: fractions(Split(validation=0.5, test=0.5), {}), ["some left for training"]),
        (lambda: fractions(Split(test=0.1), {"test": 0}), ["split.test", "has its own test part", "0.1"]),
        (
            lambda: divide(4, SHARES, np.random.default_rng(0)),
            ["too few samples: the validation part would be empty", "4 samples, fraction 0.15"],
        ),
        (
            lambda: divide(12, SHARES, np.random.default_rng(0), np.array([0] * 10 + [1] * 2)),
            ["too few samples of class '1' to stratify", "stratified: false", "at least 3"],
        ),
        (
            lambda: divide(4, SHARES, np.random.default_rng(0), None, np.array(["a", "a", "b", "b"])),
            ["too few groups", "2 groups", "at least 3"],
        ),
    ],
)
def test_mistakes(run: Any, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        run()
    for part in parts:
        assert part in str(caught.value)


def test_group_column_of_a_table(workshop: Any) -> None:
    patients = [f"p{i // 4}" for i in range(80)]
    workshop.table("a.csv", {"a": range(80), "patient": patients, "y": [i % 2 for i in range(80)]})
    spec = {"source": {"type": "table", "file": "a.csv", "target": "y"}, "split": {"group": "patient"}}
    prepared = workshop.prepare(spec, 1)
    owners = [{patients[row] for row in split.rows} for split in (prepared.train, prepared.validation, prepared.test)]
    assert sum(map(len, owners)) == 20
    assert len(set().union(*owners)) == 20


def test_given_files_are_kept(workshop: Any) -> None:
    workshop.table("train.csv", {"a": [1, 2, 3, 4], "y": "abab"})
    workshop.table("test.csv", {"y": "ba", "a": [7, 8]})
    workshop.table("val.csv", {"a": [9, 6], "y": "ba"})
    source = {
        "type": "table",
        "file": "train.csv",
        "test_file": "test.csv",
        "validation_file": "val.csv",
        "target": "y",
    }
    prepared = workshop.prepare({"source": source, "numeric": "none"}, 1)
    assert prepared.train.inputs["x"].tolist() == [[1], [2], [3], [4]]
    assert prepared.test.inputs["x"].tolist() == [[7], [8]]
    assert prepared.test.targets["y"].tolist() == [1, 0]
    assert prepared.validation.inputs["x"].tolist() == [[9], [6]]


def test_leaks_are_counted_and_named_by_line(workshop: Any) -> None:
    workshop.table("train.csv", {"a": [1, 2, 3, 4, 0.0], "b": [5, 6, 7, 8, 0], "y": "ababa"})
    workshop.table("test.csv", {"a": [9, 2, 3, "-0.0"], "b": [5, 6, 7, 0], "y": "abaa"})
    source = {"type": "table", "file": "train.csv", "test_file": "test.csv", "target": "y"}
    prepared = workshop.prepare({"source": source, "split": {"validation": 0}, "numeric": "none"}, 2)
    (leak,) = prepared.report.leaks
    assert (leak.earlier, leak.later, leak.count, leak.same_target) == ("train", "test", 3, 3)
    train, test = workshop.folder / "train.csv", workshop.folder / "test.csv"
    assert leak.examples == (
        (f"{train} line 3", f"{test} line 3"),
        (f"{train} line 4", f"{test} line 4"),
        (f"{train} line 6", f"{test} line 5"),
    )
    assert "leak: 3 test samples stand in train too (3 with the same target)" in "\n".join(prepared.report.lines())
    assert prepared.report.to_plain()["leaks"][0]["count"] == 3
    workshop.table("test.csv", {"a": [2], "b": [7], "y": "a"})
    assert not workshop.prepare({"source": source, "split": {"validation": 0}}, 2).report.leaks


def test_a_leak_with_another_target_is_told_apart(workshop: Any) -> None:
    workshop.table("train.csv", {"a": [1, 2, 3, 4], "y": "abab"})
    workshop.table("test.csv", {"a": [1, 2], "y": "bb"})
    source = {"type": "table", "file": "train.csv", "test_file": "test.csv", "target": "y"}
    (leak,) = workshop.prepare({"source": source, "split": {"validation": 0}}, 1).report.leaks
    assert (leak.count, leak.same_target) == (2, 1)


def test_limit_keeps_the_proportions_and_the_other_parts(workshop: Any) -> None:
    whole = workshop.prepare({"source": "iris"}, 4)
    some = workshop.prepare({"source": "iris", "limit": 30}, 4)
    assert np.bincount(some.train.targets["y"]).tolist() == [10, 10, 10]
    np.testing.assert_array_equal(some.test.rows, whole.test.rows)
    assert set(some.train.rows) < set(whole.train.rows)


def test_the_seed_decides(workshop: Any) -> None:
    first, again, other = (workshop.prepare({"source": "wine"}, 13, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.test.inputs["x"], again.test.inputs["x"])
    assert not np.array_equal(first.test.rows, other.test.rows)


def test_groups_shared_by_given_files_are_reported(workshop: Any) -> None:
    workshop.table("train.csv", {"a": [1, 2, 3, 4], "g": "ppqq", "y": "kmkm"})
    workshop.table("test.csv", {"a": [5, 6], "g": "qr", "y": "km"})
    source = {"type": "table", "file": "train.csv", "test_file": "test.csv", "target": "y", "group": "g"}
    report = workshop.prepare({"source": source, "split": {"validation": 0}}, 1).report
    assert "leak: 1 groups stand in train and in test, such as 'q'" in report.notes
