"""Encoders against scikit-learn's; fitted on the training part alone; stored and read back the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from data_workshop import Input
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from unitrain.data.preprocess import Preprocessing

TABLE = {"type": "table", "file": "train.csv", "test_file": "test.csv", "target": "y"}
NO_VALIDATION = {"validation": 0.0}


def mixed(workshop: Any, test_age: float = 33.0) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    ages = generator.normal(40, 12, size=50).round(2)
    cities = [("Rome", "Oslo", "Lima")[i] for i in generator.integers(3, size=50)]
    workshop.table("train.csv", {"age": ages, "city": cities, "y": ["no", "yes"] * 25})
    workshop.table("test.csv", {"age": [test_age, 20], "city": ["Oslo", "Rome"], "y": ["yes", "no"]})
    return {"ages": ages, "cities": np.array(cities)}


@pytest.mark.parametrize(
    ("method", "scaler"), [("standardise", StandardScaler()), ("min_max", MinMaxScaler()), ("none", None)]
)
def test_scaling_equals_scikit_learn(workshop: Any, method: str, scaler: Any) -> None:
    generator = np.random.default_rng(1)
    train, test = generator.normal(3, 5, size=(60, 4)), generator.normal(3, 5, size=(9, 4))
    train[:, 2] = 7.0  # constant: scikit-learn leaves its scale at 1
    for name, values in (("train.csv", train), ("test.csv", test)):
        columns = {f"c{i}": [repr(float(v)) for v in values[:, i]] for i in range(4)}
        workshop.table(name, {**columns, "y": ["a", "b", "c"] * (len(values) // 3)})
    spec = {"source": TABLE, "split": NO_VALIDATION, "numeric": method}
    prepared = workshop.prepare(spec, 4)
    expected = (train, test) if scaler is None else (scaler.fit_transform(train), scaler.transform(test))
    np.testing.assert_allclose(prepared.train.inputs["x"], expected[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(prepared.test.inputs["x"], expected[1], rtol=1e-6, atol=1e-6)
    assert "column 'c2' is constant in the training part: 7" in prepared.report.notes


def test_one_hot_equals_scikit_learn(workshop: Any) -> None:
    columns = mixed(workshop)
    prepared = workshop.prepare({"source": TABLE, "split": NO_VALIDATION}, 4)
    encoder = OneHotEncoder(sparse_output=False).fit(columns["cities"][:, None])
    expected = encoder.transform(columns["cities"][:, None])
    np.testing.assert_array_equal(prepared.train.inputs["x"][:, 1:], expected)
    np.testing.assert_array_equal(prepared.test.inputs["x"][:, 1:], encoder.transform(np.array([["Oslo"], ["Rome"]])))
    assert prepared.classes == {"y": ("no", "yes")}
    assert prepared.train.targets["y"].tolist() == [0, 1] * 25


def test_ordinal_equals_scikit_learn_and_feeds_an_embedding(workshop: Any) -> None:
    columns = mixed(workshop)
    expected = OrdinalEncoder().fit_transform(columns["cities"][:, None])
    spec = {
        "source": TABLE,
        "split": NO_VALIDATION,
        "features": {"place": "city", "x": ["age"]},
        "unseen_category": "ignore",
    }
    inputs = {"x": Input((1,)), "place": Input((), "integer")}
    prepared = workshop.prepare(spec, inputs)
    np.testing.assert_array_equal(prepared.train.inputs["place"], expected[:, 0])
    assert prepared.train.inputs["place"].dtype == np.int32
    assert "'city': 3 categories, 4 codes (the rows of an embedding)" in prepared.report.notes
    one = workshop.prepare({"source": TABLE, "split": NO_VALIDATION, "category": "ordinal"}, 2)
    np.testing.assert_array_equal(one.train.inputs["x"][:, 1:], expected)


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_filling_equals_scikit_learn(workshop: Any, strategy: str) -> None:
    values = np.array([1.0, np.nan, 2.0, 2.0, 9.0, np.nan])
    words = ["u", "v", None, "v", "w", None]
    text = [None if np.isnan(v) else v for v in values]
    workshop.table("train.csv", {"a": text, "b": words, "y": "kmkmkm"})
    workshop.table("test.csv", {"a": [None, 5], "b": ["u", None], "y": "km"})
    missing = {"numeric": strategy, "category": "most_frequent"}
    spec = {"source": TABLE, "split": NO_VALIDATION, "missing": missing, "numeric": "none"}
    prepared = workshop.prepare(spec, 4)
    imputer = SimpleImputer(strategy=strategy).fit(values[:, None])
    np.testing.assert_allclose(prepared.train.inputs["x"][:, 0], imputer.transform(values[:, None])[:, 0], rtol=1e-6)
    assert prepared.test.inputs["x"][0, 0] == pytest.approx(imputer.statistics_[0])
    filled = np.array([word or "v" for word in words], dtype=object)[:, None]
    np.testing.assert_array_equal(
        prepared.train.inputs["x"][:, 1:], OneHotEncoder(sparse_output=False).fit_transform(filled)
    )
    assert f"'a': 2 missing training values filled ({strategy})" in prepared.report.notes


def test_constants_and_dropped_rows(workshop: Any) -> None:
    workshop.table("train.csv", {"a": [1, None, 3, 4], "b": ["u", "v", None, "u"], "y": ["k", "m", "m", None]})
    workshop.table("test.csv", {"a": [None, 5], "b": ["u", None], "y": "km"})
    base = {"source": TABLE, "split": NO_VALIDATION, "numeric": "none"}
    fill = {"numeric": "constant", "numeric_value": -1, "category": "constant", "target": "drop_row"}
    prepared = workshop.prepare({**base, "missing": fill}, 4)
    assert prepared.train.inputs["x"].tolist() == [[1, 0, 1, 0], [-1, 0, 0, 1], [3, 1, 0, 0]]
    assert any("1 rows without target 'y' dropped" in note for note in prepared.report.notes)
    drop = {"numeric": "drop_row", "category": "constant", "target": "drop_row"}
    prepared = workshop.prepare({**base, "missing": drop}, 3)
    assert prepared.train.rows.tolist() == [0, 2]
    assert prepared.test.rows.tolist() == [1]


def test_only_the_training_part_is_fitted(workshop: Any) -> None:
    mixed(workshop)
    spec = {"source": TABLE, "split": NO_VALIDATION}
    before = workshop.prepare(spec, 4).preprocessing
    mixed(workshop, test_age=1e6)
    after = workshop.prepare(spec, 4)
    assert after.preprocessing == before
    # And it does look at the training part.
    text = (workshop.folder / "train.csv").read_text().splitlines()
    workshop.write("train.csv", "\n".join([text[0], "99,Oslo,yes", *text[2:]]))
    assert workshop.prepare(spec, 4).preprocessing != before


def test_a_drawn_validation_part_is_not_fitted_either(workshop: Any) -> None:
    generator = np.random.default_rng(2)
    values = generator.normal(size=100)
    workshop.table("a.csv", {"a": values, "y": ["k", "m"] * 50})
    spec = {"source": {"type": "table", "file": "a.csv", "target": "y"}}
    prepared = workshop.prepare(spec, 1)
    changed = values.copy()
    changed[prepared.validation.rows] += 100
    changed[prepared.test.rows] -= 50
    workshop.table("a.csv", {"a": changed, "y": ["k", "m"] * 50})
    assert workshop.prepare(spec, 1).preprocessing == prepared.preprocessing
    train = values[prepared.train.rows]
    np.testing.assert_allclose(
        prepared.validation.inputs["x"][:, 0],
        (values[prepared.validation.rows] - train.mean()) / train.std(),
        rtol=1e-5,
    )


def test_state_goes_through_json_and_comes_back_equal(workshop: Any) -> None:
    mixed(workshop)
    spec = {
        "source": TABLE,
        "split": NO_VALIDATION,
        "missing": {"numeric": "median"},
        "unseen_category": "ignore",
    }
    state = workshop.prepare(spec, 4).preprocessing
    text = json.dumps(state.to_plain(), allow_nan=False)
    assert Preprocessing.from_plain(json.loads(text)) == state


def test_pixels_are_standardised_by_channel_over_the_training_part(workshop: Any) -> None:
    generator = np.random.default_rng(3)
    for part, count in (("train", 12), ("test", 4)):
        for number in range(count):
            pixels = generator.integers([0, 50, 100], [100, 150, 256], size=(4, 3, 3))
            workshop.picture(f"{part}/{'ab'[number % 2]}/{number}.png", pixels)
    source = {"type": "image_folder", "folder": "train", "test_folder": "test"}
    base = {"source": source, "split": NO_VALIDATION}
    raw = workshop.prepare({**base, "pixels": "none"}, (4, 3, 3))
    assert raw.train.inputs["x"].max() > 200
    train, test = (split.inputs["x"].astype(np.float64) for split in (raw.train, raw.test))
    scaler = StandardScaler().fit(train.reshape(-1, 3))
    scaled = workshop.prepare({**base, "pixels": "standardise"}, (4, 3, 3))
    np.testing.assert_allclose(
        scaled.test.inputs["x"],
        scaler.transform(test.reshape(-1, 3)).reshape(test.shape),
        rtol=1e-5,
        atol=1e-5,
    )
    stated = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}
    normal = workshop.prepare({**base, "pixels": stated}, (4, 3, 3))
    np.testing.assert_allclose(
        normal.train.inputs["x"],
        (train / 255 - stated["mean"]) / stated["std"],
        rtol=1e-5,
        atol=1e-5,
    )


def test_regression_targets_are_standardised_and_scaled_back(workshop: Any) -> None:
    prepared = workshop.prepare({"source": "diabetes", "target_scaling": "standardise"}, 10)
    plain = workshop.prepare({"source": "diabetes"}, 10)
    scaled = prepared.train.targets["y"]
    assert abs(float(scaled.mean())) < 1e-6
    assert float(scaled.std()) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(
        prepared.preprocessing.invert("y", prepared.test.targets["y"]), plain.test.targets["y"], rtol=1e-5
    )
    column = prepared.test.targets["y"][:, None]
    np.testing.assert_allclose(prepared.preprocessing.invert("y", column), plain.test.targets["y"][:, None], rtol=1e-5)


def test_two_columns_for_one_output(workshop: Any) -> None:
    workshop.table("a.csv", {"a": range(40), "low": [v / 7 for v in range(40)], "high": range(10, 50)})
    source = {"type": "table", "file": "a.csv", "target": ["low", "high"]}
    spec = {"source": source, "target_scaling": "standardise"}
    prepared = workshop.prepare(spec, 1)
    assert prepared.train.targets["y"].shape == (28, 2)
    np.testing.assert_allclose(prepared.train.targets["y"].mean(axis=0), 0, atol=1e-6)
    back = prepared.preprocessing.invert("y", prepared.train.targets["y"])
    np.testing.assert_allclose(back[:, 1], 10 + prepared.train.rows, rtol=1e-5)


def test_several_labels_a_sample(workshop: Any) -> None:
    workshop.table("a.csv", {"a": range(40), "p": [0, 1] * 20, "q": [1, 1, 0, 0] * 10})
    source = {"type": "table", "file": "a.csv", "target": ["p", "q"]}
    prepared = workshop.prepare({"source": source}, 1)
    assert prepared.train.targets["y"].dtype == np.int32
    rows = prepared.train.rows
    np.testing.assert_array_equal(prepared.train.targets["y"], np.stack([rows % 2, rows % 4 < 2], axis=1))


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"] * 20, "classification"),
        (["true", "false"] * 20, "classification"),
        ([3, 7, 9, 7] * 10, "classification"),
        ([0.5, 1.5] * 20, "regression"),
        (list(range(40)), "regression"),
    ],
)
def test_the_task_is_inferred(workshop: Any, values: list[Any], task: str) -> None:
    workshop.table("a.csv", {"a": range(40), "y": values})
    prepared = workshop.prepare({"source": {"type": "table", "file": "a.csv", "target": "y"}}, 1)
    expected = np.int32 if task == "classification" else np.float32
    assert prepared.train.targets["y"].dtype == expected
    if values[0] == 3:
        assert prepared.classes["y"] == ("3", "7", "9")


def test_integer_codes_can_be_stated_as_categories(workshop: Any) -> None:
    workshop.table("train.csv", {"zip": [10, 9, 10, 2], "y": "abab"})
    workshop.table("test.csv", {"zip": [2], "y": "a"})
    source = {**TABLE, "columns": {"zip": "category"}}
    prepared = workshop.prepare({"source": source, "split": NO_VALIDATION}, 3)
    # In the order of the numbers: 2, 9, 10.
    assert prepared.train.inputs["x"].tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_per_column_overrides(workshop: Any) -> None:
    columns = mixed(workshop)
    spec = {"source": TABLE, "split": NO_VALIDATION, "per_column": {"age": "min_max", "city": "ordinal"}}
    inputs = workshop.prepare(spec, 2).train.inputs["x"]
    assert (inputs[:, 0].min(), inputs[:, 0].max()) == (0.0, 1.0)
    assert inputs.shape == (len(columns["ages"]), 2)


def test_unseen_categories_that_are_let_pass(workshop: Any) -> None:
    workshop.table("train.csv", {"c": "uvuv", "y": "abab"})
    workshop.table("test.csv", {"c": "zu", "y": "ab"})
    base = {"source": TABLE, "split": NO_VALIDATION, "unseen_category": "ignore"}
    assert workshop.prepare(base, 2).test.inputs["x"].tolist() == [[0, 0], [1, 0]]
    coded = workshop.prepare(base, {"x": Input((1,), "integer")})
    assert coded.test.inputs["x"].tolist() == [[2], [0]]


def test_class_counts_in_the_report(workshop: Any) -> None:
    report = workshop.prepare({"source": "iris", "split": {"validation": 0.2, "test": 0.2}}, 4).report
    assert report.class_counts["y"]["setosa"] == {"train": 30, "validation": 10, "test": 10}
    json.dumps(report.to_plain(), allow_nan=False)


def test_a_channel_that_never_changes_stays_finite(workshop: Any) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(8, 3, 3, 2)).astype(np.uint8)
    pixels[..., 1] = 51
    np.savez(workshop.folder / "a.npz", i=pixels, c=np.arange(8) % 2)
    source = {"type": "npz", "file": "a.npz", "inputs": {"x": "i"}, "targets": {"y": "c"}}
    spec = {"source": source, "pixels": "standardise", "split": {"validation": 0, "test": 0}}
    inputs = workshop.prepare(spec, (3, 3, 2)).train.inputs["x"]
    np.testing.assert_allclose(inputs[..., 1], 0.0, atol=1e-6)
    assert float(inputs[..., 0].std()) == pytest.approx(1.0, abs=1e-5)


def test_whole_numbers_keep_their_names_beside_missing_ones(workshop: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"a": [1.0, 2.0, 3.0, 4.0, 5.0], "zip": [7.0, 8.0, 7.0, 8.0, 7.0], "y": [1, None, 2, 1, 2]}
    pq.write_table(pa.table(columns), workshop.folder / "a.parquet")
    source = {"type": "table", "file": "a.parquet", "target": "y", "columns": {"zip": "category"}}
    spec = {
        "source": source,
        "missing": {"target": "drop_row"},
        "split": {"validation": 0, "test": 0},
        "numeric": "none",
    }
    prepared = workshop.prepare(spec, 3, task="classification")
    assert prepared.classes["y"] == ("1", "2")
    assert prepared.train.inputs["x"].tolist() == [[1, 1, 0], [3, 1, 0], [4, 0, 1], [5, 1, 0]]
    assert prepared.preprocessing.feature_encoders()["zip"].categories == ("7", "8")
