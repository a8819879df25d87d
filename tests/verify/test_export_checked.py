"""Exports are run again: a right one is kept, and a wrong one leaves nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from unitrain.backends import load_backend
from unitrain.backends.contract import Settings
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.verify import export
from unitrain.verify.export import Options, export_checked
from unitrain.verify.subject import draw_input
from unitrain.weights.initialize import initialize
from unitrain.weights.random import stream

GRAPH = resolve(
    ModelSpec.model_validate(
        {
            "inputs": {"image": {"shape": [6, 5, 2], "low": 0, "high": 1}, "word": {"shape": [], "dtype": "integer"}},
            "layers": [
                {"type": "conv2d", "name": "conv", "inputs": ["image"], "filters": 4, "kernel_size": 3},
                {"type": "batch_norm", "name": "norm"},
                {"type": "relu", "name": "relu"},
                {"type": "global_average_pool", "name": "pool"},
                {"type": "embedding", "name": "table", "inputs": ["word"], "vocabulary": 7, "width": 4},
                {"type": "add", "name": "sum", "inputs": ["pool", "table"]},
                {"type": "dense", "name": "z", "units": 3},
                {"type": "dense", "name": "b", "inputs": ["sum"], "units": 2},
            ],
            "outputs": ["z", "b"],
        }
    )
)
WEIGHTS = initialize(GRAPH, 4)
INPUTS = {name: draw_input(GRAPH, name, 23, stream(1, "test")) for name in GRAPH.inputs}
NAMES = {"onnx": "m.onnx", "torch": "m.pt2", "keras": "m.keras", "saved-model": "m", "safetensors": "m.safetensors"}


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("target", NAMES)
def test_a_right_file_is_kept(target, precision, tmp_path):
    weights = {name: array.astype(precision) for name, array in WEIGHTS.items()}
    path = tmp_path / NAMES[target]
    result = export_checked(GRAPH, weights, target, path, INPUTS, Options(precision=precision))
    assert result.passed
    assert set(result.verdicts) == {f"{name}, batch of {size}" for name in ("z", "b") for size in (1, 5)}
    files = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
    assert result.size_bytes == sum(part.stat().st_size for part in files) > 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("target", NAMES)
def test_a_wrong_file_leaves_nothing_and_names_the_worst(target, tmp_path, monkeypatch):
    """One bias of one output is off by a thousandth."""
    wrong = {**WEIGHTS, "b.bias": WEIGHTS["b.bias"] + np.float32(1e-3)}
    written = export.write
    monkeypatch.setattr(export, "write", lambda graph, weights, *rest: written(graph, wrong, *rest))
    path = tmp_path / NAMES[target]
    result = export_checked(GRAPH, WEIGHTS, target, path, INPUTS)
    assert not result.passed
    assert result.worst[0].startswith("b, ")
    assert {name for name, verdict in result.verdicts.items() if verdict.passed} == {"z, batch of 1", "z, batch of 5"}
    assert not list(tmp_path.iterdir())


def test_a_model_that_rounds_is_held_to_what_it_says_and_not_to_integers(tmp_path):
    """By itself onnxruntime makes integers of it, bias included, and is off by a thousand times what rounding costs."""
    onnxruntime = pytest.importorskip("onnxruntime")
    quantized = {"kernel_quantizer": {"per_channel": True}, "activation": "relu"}
    layers = [
        {"type": "fake_quantize", "name": "entry", "range": [0.0, 1.0]},
        {"type": "conv2d", "name": "conv", "filters": 6, "kernel_size": 3, **quantized},
        {"type": "fake_quantize", "name": "middle", "range": [0.0, 2.0]},
        {"type": "flatten", "name": "flat"},
        {"type": "dense", "name": "hidden", "units": 16, **quantized},
        {"type": "fake_quantize", "name": "last", "range": [0.0, 3.0]},
        {"type": "dense", "name": "z", "units": 3, "kernel_quantizer": {}},
    ]
    inputs = {"image": {"shape": [8, 8, 1], "low": 0, "high": 1}}
    graph = resolve(ModelSpec.model_validate({"inputs": inputs, "layers": layers}))
    drawn = np.random.default_rng(0)
    weights = initialize(graph, 4)
    weights |= {name: drawn.normal(size=x.shape) * 0.1 for name, x in weights.items() if name.endswith("bias")}
    weights = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    image = drawn.uniform(size=(40, 8, 8, 1)).astype(np.float32)
    path = tmp_path / "m.onnx"
    result = export_checked(graph, weights, "onnx", path, {"image": image})
    assert result.passed, result.worst
    assert "disable_quant_qdq" in result.notes[0]
    right = load_backend("numpy").compile(graph, weights, Settings(precision="float64")).predict({"image": image})["z"]
    ours = load_backend("onnx").compile(graph, weights, Settings()).predict({"image": image})["z"]
    (theirs,) = onnxruntime.InferenceSession(str(path)).run(["z"], {"image": image})
    assert np.abs(ours - right).max() < 1e-5
    assert np.abs(theirs - right).max() > 1e-3


def test_a_file_that_is_replaced_stays_until_the_new_one_is_right(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_text("old")
    with pytest.raises(InputError, match="there already"):
        export_checked(GRAPH, WEIGHTS, "onnx", path, INPUTS)
    written = export.write
    wrong = {name: array * 2 for name, array in WEIGHTS.items()}
    monkeypatch.setattr(export, "write", lambda graph, weights, *rest: written(graph, wrong, *rest))
    assert not export_checked(GRAPH, WEIGHTS, "onnx", path, INPUTS, replace=True).passed
    assert path.read_text() == "old"
    monkeypatch.undo()
    assert export_checked(GRAPH, WEIGHTS, "onnx", path, INPUTS, replace=True).passed
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() != b"old"


def test_a_folder_is_replaced_only_by_its_like(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match="no SavedModel"):
        export_checked(GRAPH, WEIGHTS, "saved-model", folder, INPUTS, replace=True)
    assert (folder / "thesis.tex").read_text() == "dear"
    (folder / "thesis.tex").unlink()
    folder.rmdir()
    first = export_checked(GRAPH, WEIGHTS, "saved-model", folder, INPUTS)
    again = export_checked(GRAPH, WEIGHTS, "saved-model", folder, INPUTS, replace=True)
    assert first.passed
    assert again.passed
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("path", "message"),
    [("m.pb", "another suffix"), ("no/m.onnx", "folder does not exist"), ("there.onnx", "folder stands")],
)
def test_places_that_cannot_be_written(path, message, tmp_path):
    (tmp_path / "there.onnx").mkdir()
    with pytest.raises(InputError, match=message):
        export_checked(GRAPH, WEIGHTS, "onnx", tmp_path / path, INPUTS, replace=True)


def test_safetensors_hold_the_canonical_weights_and_the_model(tmp_path):
    from safetensors import safe_open

    path = tmp_path / "m.safetensors"
    export_checked(GRAPH, WEIGHTS, "safetensors", path, INPUTS, Options(specification="name: m\n"))
    with safe_open(path, "np") as file:
        assert file.metadata()["specification"] == "name: m\n"
        assert set(file.keys()) == set(WEIGHTS)
        for name, array in WEIGHTS.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)


def test_batches_of_one_size_only_are_found_out(tmp_path):
    """A program that was written for a batch of five alone."""

    def run(inputs):
        if len(inputs["x"]) != 5:
            raise ValueError("five")
        return {"x": inputs["x"]}

    with pytest.raises(ValueError, match="five"):
        export.in_batches(run, {"x": np.zeros((10, 1))}, 1)


@pytest.mark.parametrize(("exporter", "package"), [("torch", "onnxscript"), ("keras", "tf2onnx")])
def test_frameworks_exporters_give_the_graphs_names(exporter, package, tmp_path):
    pytest.importorskip(package, reason=f"{exporter}'s ONNX exporter needs {package}")
    import onnx

    path = tmp_path / "m.onnx"
    result = export_checked(GRAPH, WEIGHTS, "onnx", path, INPUTS, Options(exporter=exporter))
    assert result.passed
    model = onnx.load(path)
    assert {item.name for item in model.graph.input} == set(GRAPH.inputs)
    assert {item.name for item in model.graph.output} == set(GRAPH.outputs)
    assert {item.type.tensor_type.shape.dim[0].dim_param for item in model.graph.output} == {"batch"}
    # No path of the machine that wrote it.
    assert b".py" not in model.SerializeToString()
    assert list(tmp_path.iterdir()) == [path]


def test_another_exporters_file_that_is_not_what_was_asked_for(tmp_path):
    import onnx

    from unitrain.backends.onnx import emit
    from unitrain.backends.onnx.export import put_in_order

    path = tmp_path / "m.onnx"
    onnx.save_model(emit(GRAPH, WEIGHTS, opset=18), path)
    with pytest.raises(InputError, match="cannot write this opset"):
        put_in_order(path, GRAPH, ["z", "b"], 21)
    other = SimpleNamespace(inputs={"else": None})
    with pytest.raises(InputError, match="changed the inputs"):
        put_in_order(path, other, ["z", "b"], 18)
    put_in_order(path, GRAPH, ["b", "z"], 18)
    assert [item.name for item in onnx.load(path).graph.output] == ["b", "z"]


def test_a_file_that_does_not_run_is_a_wrong_one(tmp_path, monkeypatch):
    def broken(inputs):
        raise RuntimeError("no kernel")

    def write(graph, weights, target, path, options):
        path.write_text("broken")
        return export.Written(lambda: broken)

    monkeypatch.setattr(export, "write", write)
    result = export_checked(GRAPH, WEIGHTS, "onnx", tmp_path / "m.onnx", INPUTS)
    assert not result.passed
    assert "no kernel" in str(result.worst[1])
    assert not list(tmp_path.iterdir())
