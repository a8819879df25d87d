"""Parquet tables that stay in files: the numbers of tables in memory."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unitrain.data.lazy import ArrayFile, Lazy
from unitrain.data.sources import parquet
from unitrain.spec.errors import InputError
from unitrain.train.fit import fit
from unitrain.train.recipe import load_recipe
from unitrain.train.session import prepare_data

RECIPE = """
name: table
model:
  inputs: {{x: {{shape: [{width}]}}}}
  layers: [{{type: dense, name: logits, units: 3}}]
data: {{source: {{type: table, file: all.parquet, target: kind}}, {data}}}
loss: cross_entropy
optimizer: {{type: adam, lr: 0.01}}
training: {{epochs: 2, batch_size: 16}}
"""
GENERATOR = np.random.default_rng(3)
COLUMNS = {
    "height": GENERATOR.normal(3.0, 2.0, 203),
    "small": GENERATOR.normal(size=203).astype(np.float32),
    "count": GENERATOR.integers(-(2**40), 2**40, 203),
    "city": GENERATOR.choice(["Oslo", "Rome", "Kyiv"], 203),
    "flag": GENERATOR.random(203) < 0.5,
    "digits as text": GENERATOR.integers(0, 9, 203).astype(str),
    "kind": GENERATOR.choice(["a", "b", "c"], 203),
}
WIDTH = 3 + 3 + 2 + 1  # numbers, cities, flags, numbers that were text


def write(folder, columns, data, width=WIDTH):
    pq.write_table(pa.table(columns), folder / "all.parquet", row_group_size=29)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(width=width, data=data))
    return path


@pytest.fixture(params=[10, 2**16])
def pieces(request, monkeypatch):
    """Convert, and tell batches from all of a column, at a few rows and at many."""
    monkeypatch.setattr(parquet, "_PIECE", request.param)


def test_streamed_tables_are_those_in_memory(tmp_path, pieces):
    held = prepare_data(load_recipe(write(tmp_path, COLUMNS, "stream: never, numeric: standardise")))
    lazy = prepare_data(load_recipe(write(tmp_path, COLUMNS, "stream: always, numeric: standardise")))
    assert isinstance(lazy.train.inputs["x"], Lazy)
    assert lazy.preprocessing == held.preprocessing
    for part in ("train", "validation", "test"):
        found, there = getattr(lazy, part), getattr(held, part)
        assert np.array_equal(np.asarray(found.inputs["x"]), there.inputs["x"])
        assert np.array_equal(found.targets["logits"], there.targets["logits"])


@pytest.mark.parametrize("policy", ["drop_row", "mean", "constant"])
def test_missing_numbers_are_treated_alike(tmp_path, pieces, policy):
    columns = {**COLUMNS, "height": pa.array([None if n % 7 == 0 else float(n * n % 11) for n in range(203)])}
    found = []
    for stream in ("never", "always"):
        data = prepare_data(load_recipe(write(tmp_path, columns, f"stream: {stream}, missing: {{numeric: {policy}}}")))
        found.append((data.preprocessing, np.asarray(data.train.inputs["x"]).tobytes()))
    assert found[0] == found[1]


def test_training_gives_the_same_weights(tmp_path):
    weights = []
    for stream in ("always", "never"):
        fit(write(tmp_path, COLUMNS, f"stream: {stream}"), out=tmp_path / stream, backend="numpy")
        weights.append((tmp_path / stream / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_no_file_is_left_behind(tmp_path, monkeypatch):
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(parquet.tempfile, "tempdir", str(place))
    prepared = prepare_data(load_recipe(write(tmp_path, COLUMNS, "stream: always")))
    assert os.listdir(place) == []
    assert np.isfinite(np.asarray(prepared.train.inputs["x"])).all()


def test_a_table_that_does_not_fit_streams(tmp_path, monkeypatch):
    needed = 203 * len(COLUMNS) * 28
    monkeypatch.setattr(parquet, "available_memory", lambda: 2 * needed)
    path = write(tmp_path, COLUMNS, "stream: auto")
    assert isinstance(prepare_data(load_recipe(path)).train.inputs["x"], np.ndarray)
    monkeypatch.setattr(parquet, "available_memory", lambda: 2 * needed - 2)
    assert isinstance(prepare_data(load_recipe(path)).train.inputs["x"], Lazy)


@pytest.mark.parametrize("stream", ["always", "never"])
def test_mistakes_are_told_alike(tmp_path, pieces, stream):
    def refuses(columns, *words, data=f"stream: {stream}"):
        with pytest.raises(InputError) as caught:
            fit(write(tmp_path, columns, data), out=tmp_path / "run", backend="numpy")
        for word in words:
            assert word in str(caught.value), str(caught.value)

    heights = COLUMNS["height"].copy()
    heights[171] = np.inf
    refuses({**COLUMNS, "height": heights}, "all.parquet", "row 172", "not finite", "inf")
    refuses({**COLUMNS, "height": pa.nulls(203, pa.float64())}, "'height' has no value in any row")
    refuses({name: values[:0] for name, values in COLUMNS.items()}, "no rows")
    refuses({name: values for name, values in COLUMNS.items() if name != "kind"}, "no column 'kind'")


def test_text_does_not_stream(tmp_path):
    (tmp_path / "all.csv").write_text("x,kind\n1,a\n2,b\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(width=1, data="stream: always").replace("all.parquet", "all.csv"))
    with pytest.raises(InputError, match="text does not stream"):
        fit(path, out=tmp_path / "run", backend="numpy")


def test_rows_that_lie_close_are_read_together(tmp_path, monkeypatch):
    values = np.arange(1000.0).reshape(200, 5)
    (tmp_path / "rows").write_bytes(values.tobytes())
    opened = ArrayFile(tmp_path / "rows", 0, values.shape, values.dtype, False)
    calls = []
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *given: calls.append(given) or read(*given))
    rows = GENERATOR.permutation(np.arange(20, 120))[:60]
    assert np.array_equal(opened.read(rows), values[rows])
    assert len(calls) == 1
    far = np.array([199, 3, 3, 70])
    assert np.array_equal(opened.read(far), values[far])
    assert opened.read(far[:0]).shape == (0, 5)
