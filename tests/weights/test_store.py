"""Weights in files: they come back bit for bit, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize
from unitrain.weights.store import load_tensors, load_weights, save_tensors, write_atomically, write_text


def graph(units: int = 3, name: str = "y") -> Graph:
    layers = [{"type": "dense", "name": name, "units": units}]
    return resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [2]}}, "layers": layers}))


def message(error: pytest.ExceptionInfo[InputError], path: Path) -> str:
    assert {problem.file for problem in error.value.problems} == {str(path)}
    return str(error.value)


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = {
        "kernel": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
        "strided": np.arange(24.0).reshape(4, 6)[::2, ::-1],
        "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "scalar": np.array(1.5),
        "empty": np.zeros((0, 3), np.float32),
        "odd": np.array([np.nan, np.inf, -0.0, 1e-45], np.float32),
    }
    save_tensors(path, tensors, {"model": "m"})
    for found in (load_tensors(path), load_file(path)):
        assert found.keys() == tensors.keys()
        for name, array in tensors.items():
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            assert found[name].tobytes() == np.ascontiguousarray(array).tobytes()


def test_weights_of_a_graph_come_back(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, initialize(graph(), 0))
    for name, array in load_weights(path, graph()).items():
        np.testing.assert_array_equal(array, initialize(graph(), 0)[name])


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, initialize(graph(), 0))
    with pytest.raises(InputError) as error:
        load_weights(path, graph(units=4))
    assert "'y.kernel' has shape [2, 3], the model's is [2, 4]" in message(error, path)
    with pytest.raises(InputError) as error:
        load_weights(path, graph(name="z"))
    assert "'z.kernel' is missing" in message(error, path)
    assert "'y.kernel' is not a parameter" in message(error, path)


def test_what_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError) as error:
        load_tensors(path)
    assert "no such file" in message(error, path)
    save_tensors(path, initialize(graph(), 0))
    whole = path.read_bytes()
    for content in (b"", b"not weights at all", whole[:-4], whole[:20], b"\x80\x04\x95pickle"):
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            load_tensors(path)
        assert "not a sound safetensors file" in message(error, path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(InputError) as error:
        write_atomically(path, fail)
    assert "cannot be written: disk full" in message(error, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_no_tensors_at_all_come_back(tmp_path: Path) -> None:
    path = tmp_path / "nothing.safetensors"
    for metadata in ({}, None, {"a": "b"}):
        save_tensors(path, {}, metadata)
        assert load_tensors(path) == {}
