"""Inputs that stay in their files: the numbers of inputs in memory, and memory that does not grow with the file."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from unitrain.data import lazy, raw
from unitrain.data.lazy import Lazy
from unitrain.data.moments import Moments
from unitrain.data.sources import array_file
from unitrain.data.sources.array_file import open_npy
from unitrain.spec.errors import InputError
from unitrain.train.fit import fit
from unitrain.train.recipe import load_recipe
from unitrain.train.session import prepare_data

RECIPE = """
name: streamed
model:
  inputs: {{x: {{shape: {shape}}}}}
  layers: [{{type: flatten}}, {{type: dense, name: logits, units: 3}}]
data: {{source: {source}, stream: always{data}}}
loss: cross_entropy
optimizer: {{type: adam, lr: 0.01}}
training: {{epochs: 2, batch_size: 16}}
"""
NPY = "{type: npy, inputs: {x: x.npy}, targets: {logits: y.npy}}"
NPZ = "{type: npz, file: all.npz, inputs: {x: x}, targets: {logits: y}}"
GENERATOR = np.random.default_rng(5)
KINDS = {
    "numbers": GENERATOR.normal(3.0, 2.0, (203, 7)).astype(np.float32),
    "whole numbers": GENERATOR.integers(-9, 9, (203, 4)),
    "column": GENERATOR.normal(size=203),
    "images": GENERATOR.integers(0, 256, (203, 6, 5, 3)).astype(np.uint8),
    "grey images": GENERATOR.integers(0, 256, (203, 6, 5)).astype(np.uint8),
    "other byte order, first axis closest": np.asfortranarray(GENERATOR.normal(size=(203, 7)).astype(">f4")),
}


def write(folder, values, source=NPY, data=""):
    classes = np.arange(len(values)) % 3
    np.save(folder / "x.npy", values)
    np.save(folder / "y.npy", classes)
    np.savez(folder / "all.npz", x=values, y=classes)
    shape = list(values.shape[1:]) or [1]
    if values.dtype == np.uint8 and values.ndim == 3:
        shape.append(1)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(shape=shape, source=source, data=data))
    return path


@pytest.fixture
def small_pieces(monkeypatch):
    """Fit on pieces of a few rows."""
    monkeypatch.setattr(raw, "_CHUNK", 100)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", [NPY, NPZ])
def test_streamed_inputs_are_those_in_memory(tmp_path, small_pieces, kind, source):
    path = write(tmp_path, KINDS[kind], source, ", pixels: standardise")
    held = prepare_data(load_recipe(path, ["data.stream=never"]))
    lazy = prepare_data(load_recipe(path))
    assert held.preprocessing == lazy.preprocessing
    assert any("stream" in note for note in lazy.report.notes)
    assert not any("stream" in note for note in held.report.notes)
    for part in ("train", "validation", "test"):
        there, found = getattr(held, part), getattr(lazy, part)
        assert isinstance(there.inputs["x"], np.ndarray)
        values = found.inputs["x"]
        assert isinstance(values, Lazy)
        assert (values.shape, values.dtype) == (there.inputs["x"].shape, there.inputs["x"].dtype)
        assert np.array_equal(np.asarray(values), there.inputs["x"])
        assert np.array_equal(values[3:9:2], there.inputs["x"][3:9:2])
        assert np.array_equal(values[[4, 1, 4]], there.inputs["x"][[4, 1, 4]])
        assert np.array_equal(values[2], there.inputs["x"][2])
        assert np.array_equal(found.targets["logits"], there.targets["logits"])
        assert np.array_equal(found.rows, there.rows)


@pytest.mark.parametrize("kind", ["numbers", "images"])
def test_streamed_training_gives_the_same_weights(tmp_path, kind):
    path = write(tmp_path, KINDS[kind])
    streamed = fit(path, out=tmp_path / "a", backend="numpy")
    held = fit(path, out=tmp_path / "b", overrides=["data.stream=never"], backend="numpy")
    first, second = ((tmp_path / name / "weights.safetensors").read_bytes() for name in "ab")
    assert first == second
    assert streamed.end.test == held.end.test


def test_parts_limits_and_missing_values(tmp_path, small_pieces):
    values = KINDS["numbers"].copy()
    values[[5, 17], [0, 3]] = np.nan
    for policy in ("drop_row", "mean", "constant"):
        path = write(tmp_path, values, data=f", limit: 90, missing: {{numeric: {policy}}}")
        held = prepare_data(load_recipe(path, ["data.stream=never"]))
        lazy = prepare_data(load_recipe(path))
        assert held.preprocessing == lazy.preprocessing
        assert np.array_equal(np.asarray(lazy.train.inputs["x"]), held.train.inputs["x"])
        assert len(lazy.train) == 90


def test_the_mean_fill_is_numpys_mean_of_what_is_there(tmp_path, small_pieces):
    values = KINDS["numbers"].astype(np.float64)
    values[::7, 2] = np.nan
    data = ", missing: {numeric: mean}, split: {validation: 0, test: 0}"
    lazy = prepare_data(load_recipe(write(tmp_path, values, data=data)))
    encoder = lazy.preprocessing.feature_encoders()["x"]
    np.testing.assert_allclose(encoder.fill, np.nanmean(values, axis=0), rtol=1e-13)


def test_moments_of_pieces_are_those_of_the_whole():
    values = np.random.default_rng(1).normal(1e4, 1.0, (1000, 3))
    moments = Moments.of(values[:1])
    for first, end in ((1, 2), (2, 400), (400, 1000)):
        moments = moments.merged(Moments.of(values[first:end]))
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.deviation, values.std(axis=0), rtol=1e-12)
    assert np.array_equal(moments.low, values.min(axis=0))
    assert np.array_equal(moments.high, values.max(axis=0))


def test_what_fits_is_held_and_what_does_not_streams(tmp_path, monkeypatch):
    path = write(tmp_path, KINDS["numbers"])
    held = prepare_data(load_recipe(path, ["data.stream=auto"]))
    assert isinstance(held.train.inputs["x"], np.ndarray)
    monkeypatch.setattr(array_file, "available_memory", lambda: 203 * 7 * 28 * 2 - 2)
    lazy = prepare_data(load_recipe(path, ["data.stream=auto"]))
    assert isinstance(lazy.train.inputs["x"], Lazy)


def refuses(path, *words, overrides=()):
    with pytest.raises(InputError) as caught:
        fit(path, out=path.parent / "run", overrides=list(overrides), backend="numpy")
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_refusals_say_what_streams(tmp_path, monkeypatch):
    values = KINDS["numbers"]
    path = write(tmp_path, values, data=", missing: {numeric: median}")
    refuses(path, "median", "all values", "mean, constant", "stream: never")
    path = write(tmp_path, values, "digits")
    refuses(path, "digits does not stream", "npy")
    path = write(tmp_path, values, NPZ)
    np.savez_compressed(tmp_path / "all.npz", x=values, y=np.arange(203) % 3)
    refuses(path, "all.npz", "compressed", "np.savez")
    path = write(tmp_path, values)
    np.save(tmp_path / "y.npy", np.arange(9))
    refuses(path, "differ in their number of samples", "x 203", "logits 9")
    path = write(tmp_path, values)
    monkeypatch.setattr(array_file, "available_memory", lambda: 100)
    refuses(path, "target 'logits' is too large")


def test_a_broken_file_is_told(tmp_path):
    path = write(tmp_path, KINDS["numbers"])
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-50])
    refuses(path, "x.npy", "more than the file can hold")
    (tmp_path / "x.npy").write_bytes(b"nonsense")
    refuses(path, "x.npy", "cannot be read")
    np.save(tmp_path / "x.npy", np.array([None, 1] * 100), allow_pickle=True)
    refuses(path, "x.npy", "Python objects")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_number_is_told_with_its_sample(tmp_path, small_pieces, bad):
    values = KINDS["numbers"].copy()
    values[171, 2] = bad
    for stream in ("always", "never"):
        path = write(tmp_path, values, data=", split: {validation: 0, test: 0}")
        refuses(path, "sample 171", overrides=[f"data.stream={stream}"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process' own peak")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """Peak memory of a fit on a file of 300 MB, above that of a fit on one of 3 MB, in a process of its own.

    Linux's ``VmHWM`` is the process' own; ``ru_maxrss`` begins at the peak of the process that started it.
    """
    path = write(tmp_path, KINDS["numbers"])
    script = textwrap.dedent(
        """
        import pathlib, sys
        from unitrain.train.fit import fit
        fit(sys.argv[1], out=sys.argv[2], backend="numpy", overrides=["training.batch_size=1000", "training.epochs=1"])
        status = pathlib.Path("/proc/self/status").read_text().splitlines()
        print(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM:")))
        """
    )
    peaks = []
    for rows in (750, 75_000):
        block = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (rows, 1000))
        for first in range(0, rows, 750):
            block[first : first + 750] = GENERATOR.random((750, 1000), dtype=np.float32)
        del block
        np.save(tmp_path / "y.npy", np.arange(rows) % 3)
        path.write_text(RECIPE.format(shape=[1000], source=NPY, data=""))
        ran = subprocess.run(
            [sys.executable, "-c", script, str(path), str(tmp_path / f"run{rows}")],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(ran.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 150


@pytest.mark.parametrize("shape", [(37,), (37, 5), (37, 3, 4), (37, 2, 3, 4), (37, 0)])
@pytest.mark.parametrize("piece", [1, 1000, 10**9])
def test_rows_of_an_array_in_any_order_are_numpy_s(tmp_path, monkeypatch, shape, piece):
    monkeypatch.setattr(lazy, "_PIECE_BYTES", piece)
    values = np.random.default_rng(0).normal(size=shape).astype(">f4")
    rows = np.random.default_rng(1).permutation(37)[:20]
    for order in "CF":
        np.save(tmp_path / "x.npy", np.asarray(values, order=order))
        stored = open_npy(tmp_path / "x.npy")
        np.testing.assert_array_equal(stored.read_all(), values)
        np.testing.assert_array_equal(stored.read(rows), values[rows])
        np.testing.assert_array_equal(stored.read_all(), values)
        assert (len(stored), stored.ndim, stored.size, stored.dtype) == (37, values.ndim, values.size, values.dtype)
