"""Models trained for integers compute in onnxruntime's integers what they computed in training."""

from __future__ import annotations

import json
import platform
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from unitrain.backends.numpy.execution import Mode
from unitrain.backends.numpy.model import NumpyModel
from unitrain.backends.onnx.integer import emit_int8
from unitrain.backends.onnx.program import UNSATURATED
from unitrain.cli.main import main
from unitrain.graph.graph import Graph
from unitrain.graph.passes.quantize import insert_fake_quantize
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.spec.quantization import Quantization
from unitrain.train.fit import fit, load_run
from unitrain.train.inference import TrainedRun
from unitrain.train.session import prepare_data
from unitrain.verify.export_int8 import Int8Result, Nearness, export_int8
from unitrain.verify.verdict import judge
from unitrain.weights.initialize import initialize
from unitrain.weights.store import load_weights

ROOT = Path(__file__).parents[3]
SMALL = ["quantization={}", "model.filters=8", "model.width=32"]
JOINED: dict[str, Any] = {
    "inputs": {"image": {"shape": [8, 8, 3], "low": 0.0, "high": 1.0}},
    "layers": [
        {"type": "conv2d", "name": "stem", "filters": 8, "kernel_size": 3, "padding": "same", "activation": "relu"},
        {"type": "conv2d", "name": "conv", "filters": 8, "kernel_size": 3, "padding": "same", "use_bias": False},
        {"type": "batch_norm", "name": "norm"},
        {"type": "add", "name": "sum", "inputs": ["norm", "stem"]},
        {"type": "relu", "name": "relu"},
        {"type": "depthwise_conv2d", "name": "depthwise", "kernel_size": 3, "padding": "same", "activation": "relu6"},
        {"type": "concatenate", "name": "both", "inputs": ["relu", "depthwise"]},
        {"type": "max_pool2d", "name": "pool", "kernel_size": 2},
        {"type": "conv2d", "name": "mix", "filters": 8, "kernel_size": 1, "activation": "relu"},
        {"type": "global_average_pool", "name": "mean"},
        {"type": "dense", "name": "logits", "units": 5},
    ],
}


def executed(model: onnx.ModelProto, folder: Path) -> tuple[onnxruntime.InferenceSession, Counter[str]]:
    """Return a session, and the operators that onnxruntime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry(*UNSATURATED)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def saturates() -> bool:
    """Tell whether this processor adds products of bytes in 16 bits."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return not {"avx512_vnni", "avx_vnni"} & set(Path("/proc/cpuinfo").read_text().split())


def with_ranges(graph: Graph, x: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return drawn weights, with ranges and statistics of one batch."""
    weights: dict[str, Any] = dict(initialize(graph, 1))
    model = NumpyModel(graph, weights)
    return {**weights, **model.run({"image": x}, Mode(training=True)).updates}


@pytest.mark.parametrize("activations", ["moving_average", "learned"])
def test_sums_joins_and_norms_are_computed_in_integers(activations: str, tmp_path: Path) -> None:
    options = Quantization.model_validate({"activations": activations})
    graph = insert_fake_quantize(resolve(ModelSpec.model_validate(JOINED)), options)
    x = np.random.default_rng(2).random((64, 8, 8, 3)).astype(np.float32)
    weights = with_ranges(graph, x)
    session, operators = executed(emit_int8(graph, weights), tmp_path)
    if activations == "moving_average":
        # A learned step may reach beyond 6, and then ReLU6 stays behind its convolution, in floats.
        assert operators["QLinearConv"] == 4
        assert not {"Conv", "FusedConv", "Relu", "Clip"} & operators.keys()
    assert operators["QGemm"] == operators["QLinearAdd"] == operators["QLinearConcat"] == 1
    assert not {"Gemm", "Add", "Concat", "BatchNormalization"} & operators.keys()
    expected = NumpyModel(graph, weights)(x)["logits"]
    (found,) = session.run(["logits"], {"image": x})
    # Integers are rounded at places where floats are not: by a level here and there, of 255.
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.02 * expected.std()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few epochs."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    fit(ROOT / "recipes/digits-cnn.yaml", backend="numpy", out=folder, overrides=[*SMALL, "training.epochs=4"])
    return folder


def test_decisions_are_those_of_training(digits: Path, tmp_path: Path) -> None:
    trained = TrainedRun.open(digits, backend="numpy")
    samples, values = trained.evaluate("validation")
    assert values["accuracy"] > 0.7
    prepared = prepare_data(trained.loaded, trained.preprocessing)
    assert prepared.validation is not None
    inputs = prepared.validation.inputs
    weights = trained.program.weights()
    result = export_int8(trained.loaded.graph, weights, tmp_path / "m.onnx", inputs, frozenset({"logits"}))
    assert result.samples == samples
    assert result.passed
    assert result.exact.agreement["logits"] >= 0.995
    assert result.exact.deviation["logits"] < 0.02
    if saturates():
        assert result.saturated is not None
        assert result.saturated.deviation["logits"] > result.exact.deviation["logits"]
    else:
        assert result.saturated is None
    written = onnx.load(tmp_path / "m.onnx")
    _, operators = executed(written, tmp_path)
    assert operators["QLinearConv"] == operators["QGemm"] == 2
    bytes_ = [tensor.dims for tensor in written.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    kernels = [weights[name].size for name in weights if name.endswith(".kernel")]
    assert sorted(int(np.prod(dims)) for dims in bytes_ if len(dims) > 1) == sorted(kernels)


def test_a_run_goes_on_from_one_in_floats(tmp_path: Path) -> None:
    recipe = ROOT / "recipes/digits-cnn.yaml"
    floats = fit(recipe, out=tmp_path / "float", overrides=[*SMALL[1:], "training.epochs=3"])
    start = f"initial_weights={tmp_path / 'float'}"
    done = fit(recipe, out=tmp_path / "int8", overrides=[*SMALL, start, "training.epochs=1", "optimizer.lr=0.0003"])
    assert done.end.validation["accuracy"] >= floats.end.validation["accuracy"] - 0.02


def test_what_was_not_trained_for_integers_is_refused() -> None:
    graph = resolve(ModelSpec.model_validate(JOINED))
    with pytest.raises(InputError, match="was not trained for integers"):
        emit_int8(graph, initialize(graph, 0))
    six = insert_fake_quantize(graph, Quantization(bits=6))
    with pytest.raises(InputError, match="8 bits"):
        emit_int8(six, initialize(six, 0))


@pytest.mark.parametrize("backend", ["numpy", "torch", "keras"])
def test_every_backend_finds_the_same_ranges_and_writes_the_same_graph(backend: str, tmp_path: Path) -> None:
    overrides = [*SMALL, "training.max_steps=2", "training.keep_best=null", "training.batch_size=32"]
    recipe = ROOT / "recipes/digits-cnn.yaml"
    found = {}
    for name, precision in ((backend, "float32"), ("numpy", "float64"), ("numpy", "float32")):
        out = tmp_path / f"{name}-{precision}"
        if not out.exists():
            fit(recipe, backend=name, out=out, overrides=[*overrides, f"training.precision={precision}"])
        graph = load_run(TrainedRun.open(out, backend="numpy").folder).graph
        found[name, precision] = load_weights(out / "weights.safetensors", graph)
    ours, reference, yardstick = found[backend, "float32"], found["numpy", "float64"], found["numpy", "float32"]
    ranges = [name for name in reference if name.endswith(("running_low", "running_high"))]
    assert len(ranges) == 8
    together = [np.concatenate([run[name] for name in ranges]) for run in (ours, reference, yardstick)]
    verdict = judge(*together)
    assert verdict.passed, str(verdict)
    written, theirs = (emit_int8(graph, run).graph.node for run in (ours, yardstick))
    assert [(node.op_type, *node.input, *node.output) for node in written] == [
        (node.op_type, *node.input, *node.output) for node in theirs
    ]


def test_what_a_processor_without_vnni_decides_is_printed(digits: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    exact, cut = Nearness({"logits": 0.9975}, {"logits": 0.011}), Nearness({"logits": 0.9638}, {"logits": 0.12})
    for saturated in (cut, None):
        result = Int8Result(tmp_path / "m.onnx", 9_999, 359, exact, saturated)
        monkeypatch.setattr("unitrain.verify.export_int8.export_int8", lambda *_, _result=result, **__: _result)
        for options in ([], ["--json"]):
            with pytest.raises(SystemExit) as ended:
                main(["export", str(digits), "--to", "onnx", "--int8", "--out", str(tmp_path / "m.onnx"), *options])
            assert ended.value.code == 0
            printed = capsys.readouterr().out
            if options:
                found = json.loads(printed)
                assert found["exact"]["agreement"] == {"logits": 0.9975}
                assert found["saturated"] == (None if saturated is None else asdict(saturated))
            else:
                assert "9,999 bytes, computes in integers; 359 samples compared" in printed
                assert "logits: 99.75% of decisions as in training" in printed
                assert ("session.x64quantprecision" in printed and "96.38%" in printed) == (saturated is not None)
