from __future__ import annotations

from typing import Any

import pytest

from unitrain.spec.base import validate
from unitrain.spec.data import DataSpec
from unitrain.spec.errors import InputError
from unitrain.spec.yaml import parse_yaml

WHOLE = """
source:
  type: table
  file: train.csv
  test_file: test.csv
  target: {price: [low, high], kind: class}
  columns: {age: numeric, city: category, id: ignore, when: group}
  weight: w
  separator: ";"
features: {person: [age, city], place: city}
split: {train: 0.8, validation: 0.2, stratified: false}
missing: {numeric: median, category: constant, category_value: none, target: drop_row}
numeric: min_max
category: ordinal
per_column: {age: none}
unseen_category: ignore
pixels: {mean: [0.1, 0.2, 0.3], std: [1, 1, 1]}
vocabulary: {type: words, size: 50}
target_scaling: standardise
invalid_image: skip
augment: [flip, {type: crop, padding: 2, mode: reflect}, {type: shift, width: 3}, {type: cutout, size: 4}]
limit: 100
stream: never
workers: 2
"""


def read(text: str) -> DataSpec:
    return validate(DataSpec, parse_yaml(text, file="recipe.yaml"))


def test_every_field_survives_yaml() -> None:
    spec = read(WHOLE)
    series = read("source: sunspots\nwindow: {length: 33, horizon: 5, stride: 2, season: 11}\nsplit: {gap: 3}")
    assert {*spec.to_plain(), *series.to_plain()} == set(DataSpec.model_fields)
    for given in (spec, series):
        assert read(given.to_yaml()) == given
        assert DataSpec.model_validate(given.to_plain()) == given


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes", "mnist_5k"])
def test_a_bare_name_is_a_source(name: str) -> None:
    assert read(f"source: {name}") == DataSpec.model_validate({"source": {"type": name}})


def test_group_is_the_same_from_three_places() -> None:
    table = {"type": "table", "file": "a.csv", "target": "y"}
    specs: list[dict[str, Any]] = [
        {"source": {**table, "group": "g"}},
        {"source": {**table, "columns": {"g": "group"}}},
        {"source": table, "split": {"group": "g"}},
    ]
    assert [DataSpec.model_validate(spec).group() for spec in specs] == ["g", "g", "g"]


def test_json_schema_names_every_source() -> None:
    text = str(DataSpec.model_json_schema())
    for name in ("digits", "fashion_mnist", "image_folder", "cutout", "unseen_category"):
        assert name in text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("source: digit", ["recipe.yaml:1: source.type", "unknown type 'digit'", "did you mean 'digits'?"]),
        ("source: digits\nsplits: {}", ["recipe.yaml:2", "unknown field 'splits'", "did you mean 'split'?"]),
        ("source: digits\npixels: unit_", ["recipe.yaml:2: pixels", "unit, standardise or none"]),
        ("source: digits\naugment: [flop]", ["augment[0]", "did you mean 'flip'?"]),
        ("source: digits\nsplit: {test: 1.5}", ["split.test", "less than 1", "1.5"]),
        ("source: digits\nlimit: 0", ["limit", "greater than 0"]),
        ("source: digits\nnumeric: standardize", ["did you mean 'standardise'?"]),
        ("source: digits\nper_column: {a: onehot}", ["per_column.a", "one_hot or ordinal"]),
        ("source: digits\npixels: {mean: [1], std: [1, 2]}", ["mean has 1 channels and std 2"]),
        ("source: digits\nsplit: {group: a}", ["a source of type digits has no columns to group by"]),
        ("source: {type: table, file: a.csv}", ["no target: state `target: COLUMN`"]),
        (
            "source: {type: table, file: a.csv, target: y, columns: {y: numeric}}",
            ["column 'y' is stated as target and as numeric"],
        ),
        (
            "source: {type: table, file: a.csv, target: y, columns: {x: nummer}}",
            ["source.columns.x", "numeric, category, text, target, weight, group or ignore"],
        ),
        (
            "source: {type: table, file: a.csv, target: y, group: g}\nsplit: {group: h}",
            ["the group is 'h' in split and 'g' in source"],
        ),
        (
            "source: {type: table, file: a.csv, target: y, columns: {a: weight, b: weight}}",
            ["one column can be the weight, not a, b"],
        ),
        (
            "source: {type: table, file: a.csv, target: {p: y}, columns: {z: target}}",
            ["column 'z' is stated as a target, and `target` does not name it"],
        ),
        (
            "source: {type: idx, images: a, labels: b, test_images: c}",
            ["test_images and test_labels must be given together"],
        ),
    ],
)
def test_mistakes_are_answered(text: str, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    for part in parts:
        assert part in str(caught.value)
    assert len(caught.value.problems) == 1
