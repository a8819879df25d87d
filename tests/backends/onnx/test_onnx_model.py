"""The ONNX models that are written: right in every opset, checked, named like the spec, and without needless moves."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conformance.cases import CASES, Array, Case, case_graph, case_inputs, case_weights, suite_graph
from hypothesis import given, settings, strategies
from onnx.reference import ReferenceEvaluator

from unitrain.api import load_model
from unitrain.backends import load_backend
from unitrain.backends.contract import Precision, Settings
from unitrain.backends.onnx import NEWEST_OPSET, OLDEST_OPSET, emit, opsets
from unitrain.backends.onnx.program import OnnxProgram
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.layers import RecurrentLayer
from unitrain.spec.model import ModelSpec
from unitrain.verify.verdict import judge
from unitrain.weights.initialize import initialize
from unitrain.weights.random import stream

ROOT = Path(__file__).resolve().parents[3]
SUITE = {f"{case.layer.type}_{number}": case for number, case in enumerate(CASES)}
Tensors = dict[str, Array]


@cache
def suite() -> tuple[Graph, Tensors, Tensors]:
    """Return the model of all conformance cases, its weights and its inputs."""
    weights: Tensors = {}
    inputs: Tensors = {}
    for name, case in SUITE.items():
        weights |= case_weights(case, name)
        inputs |= case_inputs(case, name)
    return suite_graph(SUITE), weights, inputs


@cache
def suite_reference(precision: Precision) -> Tensors:
    graph, weights, inputs = suite()
    return load_backend("numpy").compile(graph, weights, Settings(precision=precision)).predict(inputs)


def graph_of(*layers: dict[str, Any], outputs: list[str] | None = None, **inputs: Any) -> Graph:
    given = {
        name: entry if isinstance(entry, dict) else {"shape": entry}
        for name, entry in (inputs or {"image": [8, 8, 3]}).items()
    }
    return resolve(ModelSpec.model_validate({"inputs": given, "layers": layers, "outputs": outputs}))


def random_weights(graph: Graph) -> Tensors:
    """Draw weights none of which is 0 or 1."""
    return {
        name: stream(0, "onnx", name).uniform(0.5, 1.5, parameter.shape).astype(np.float32)
        for name, parameter in graph.parameters.items()
    }


def random_inputs(graph: Graph, batch: int = 3) -> Tensors:
    return {
        name: stream(0, "onnx", name, batch).normal(size=(batch, *given.shape)).astype(np.float32)
        for name, given in graph.inputs.items()
    }


def assert_right(graph: Graph, weights: Tensors, inputs: Tensors, precision: Precision = "float32") -> None:
    """Compare outputs and activations with NumPy in float64 by the verdict rule."""
    numpy = load_backend("numpy")
    reference = numpy.compile(graph, weights, Settings(precision="float64"))
    numpy32 = numpy.compile(graph, weights, Settings(precision="float32"))
    program = OnnxProgram(graph, weights, Settings(precision=precision))
    for run in ("predict", "activations"):
        found, wanted, yardstick = (getattr(each, run)(inputs) for each in (program, reference, numpy32))
        assert found.keys() == wanted.keys()
        for name, array in found.items():
            verdict = judge(array, wanted[name], yardstick[name])
            assert verdict.passed, f"{run}, {name}: {verdict}"


def kinds(graph: Graph, **options: Any) -> Counter[str]:
    return Counter(node.op_type for node in emit(graph, random_weights(graph), **options).graph.node)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("opset", opsets())
def test_all_layers_in_every_opset(opset: int, precision: Precision) -> None:
    graph, weights, inputs = suite()
    program = OnnxProgram(graph, weights, Settings(precision=precision), opset=opset)
    assert program.model.opset_import[0].version == opset
    found = program.predict(inputs)
    assert found.keys() == SUITE.keys()
    faults = []
    for name, array in found.items():
        assert array.dtype == np.dtype(precision)
        verdict = judge(array, suite_reference("float64")[name], suite_reference("float32")[name])
        if not verdict.passed:
            faults.append(f"{SUITE[name].label}: {verdict}")
    assert not faults, "\n".join(faults)


def test_the_newest_operators_are_chosen() -> None:
    """gelu exists from opset 20, RMS norm from 23; layer norm always. Group norm's variance is too coarse."""
    graph = graph_of(
        {"type": "gelu"},
        {"type": "group_norm", "groups": 1},
        {"type": "rms_norm"},
        {"type": "layer_norm"},
    )
    names = {"Gelu": 20, "RMSNormalization": 23, "LayerNormalization": 17}
    for opset in opsets():
        found = kinds(graph, opset=opset)
        assert not found["GroupNormalization"]
        assert {name for name in names if found[name]} == {name for name, since in names.items() if since <= opset}


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 21, NEWEST_OPSET])
def test_models_are_checked_and_every_tensor_has_a_shape(opset: int) -> None:
    graph, weights, _ = suite()
    model = emit(graph, weights, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    described = {info.name: info.type.tensor_type.shape.dim for info in (*model.graph.value_info, *model.graph.output)}
    constants = {initializer.name for initializer in model.graph.initializer}
    for node in model.graph.node:
        if constants.issuperset(node.input):
            continue  # a turned parameter
        dims = described[node.output[0]]
        # ONNX's recurrent operators have the steps before the batch.
        assert [dim.dim_param for dim in dims if not dim.dim_value] == ["batch"], node.name


# onnx 1.23's evaluator reads beyond the input of a 1d max pool with padding.
BEYOND_THE_EVALUATOR = {"max_pool1d kernel_size=3 padding=1 strides=1 on 5x4"}


def beyond_its_operators(case: Case) -> bool:
    """Whether the evaluator leaves out what a recurrent layer needs: ``sequence_lens``, and ReLU in ``RNN``."""
    layer = case.layer
    if not isinstance(layer, RecurrentLayer):
        return False
    return (layer.mask is not None and layer.returns != "sequence") or getattr(layer, "nonlinearity", "") == "relu"


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_onnx_own_evaluator_agrees(precision: Precision) -> None:
    """Another implementation of ONNX computes the same: the models mean what onnxruntime makes of them."""
    faults = []
    for case in CASES:
        if case.label in BEYOND_THE_EVALUATOR or (precision == "float32" and beyond_its_operators(case)):
            continue
        graph, weights, inputs = case_graph(case), case_weights(case), case_inputs(case)
        given = {name: array.astype(precision) if array.dtype.kind == "f" else array for name, array in inputs.items()}
        (found,) = ReferenceEvaluator(emit(graph, weights, precision=precision)).run(None, given)
        wanted, yardstick = (
            load_backend("numpy").compile(graph, weights, Settings(precision=each)).predict(inputs)["y"]
            for each in ("float64", "float32")
        )
        verdict = judge(found, wanted, yardstick)
        if not verdict.passed:
            faults.append(f"{case.label}: {verdict}")
    assert not faults, "\n".join(faults)


def test_names_are_the_specs() -> None:
    graph = resolve(load_model(ROOT / "models" / "resnet20.yaml"))
    model = emit(graph, initialize(graph, 0))
    assert [node.name for node in model.graph.node] == [
        "image.channels_first",
        *(node.name for node in graph.nodes),
    ]
    assert all(node.output[0] == node.name for node in model.graph.node)
    initializers = {tensor.name for tensor in model.graph.initializer}
    assert {name for name in initializers if not name.startswith("constant.")} == set(graph.parameters)
    assert [given.name for given in model.graph.input] == ["image"]
    assert model.graph.name == graph.name
    assert emit(graph, initialize(graph, 0), name="other").graph.name == "other"


def test_lenet_has_no_operator_too_many() -> None:
    """One for each layer, and two moves: into ONNX's layout at the start, into the spec's before flattening."""
    graph = resolve(load_model(ROOT / "models" / "lenet5.yaml"))
    assert kinds(graph) == {"Conv": 2, "Relu": 4, "MaxPool": 2, "Flatten": 1, "Gemm": 3, "Transpose": 2}
    assert len(graph.nodes) == 12


@pytest.mark.parametrize(
    "between",
    [
        [{"type": "relu"}, {"type": "relu6"}, {"type": "prelu"}],
        [{"type": "batch_norm"}, {"type": "dropout"}, {"type": "group_norm", "groups": 2}],
        [
            {"type": "max_pool2d", "kernel_size": 2},
            {"type": "upsample2d"},
            {"type": "average_pool2d", "kernel_size": 2},
        ],
        [{"type": "padding", "amounts": [1, 1]}, {"type": "softmax", "axis": 0}, {"type": "softmax"}],
        [{"type": "conv_transpose2d", "filters": 4, "kernel_size": 2}, {"type": "gelu"}],
        [{"type": "separable_conv2d", "filters": 4, "kernel_size": 2}, {"type": "depthwise_conv2d", "kernel_size": 2}],
        [{"type": "relu", "name": "left"}, {"type": "add", "inputs": ["left", "first"]}, {"type": "silu"}],
        [{"type": "relu", "name": "left"}, {"type": "concatenate", "inputs": ["left", "first"]}],
        [{"type": "global_average_pool", "keep_axes": True}, {"type": "multiply", "inputs": ["first", "layer"]}],
    ],
    ids=lambda layers: "+".join(layer["type"] for layer in layers),
)
def test_nothing_is_moved_between_two_convolutions(between: list[dict[str, Any]]) -> None:
    between = [{**layer, "name": "layer"} if layer["type"] == "global_average_pool" else layer for layer in between]
    graph = graph_of(
        {"type": "conv2d", "name": "first", "filters": 4, "kernel_size": 3},
        *between,
        {"type": "conv2d", "name": "last", "filters": 2, "kernel_size": 1},
    )
    found = kinds(graph)
    assert found["Transpose"] == 2  # of the input and of the output
    assert found["Identity"] == 0
    # Group norm sees the channels of a group as one axis: there and back.
    assert found["Reshape"] == 2 * sum(layer["type"] == "group_norm" for layer in between)
    assert_right(graph, random_weights(graph), random_inputs(graph))


def test_a_value_is_moved_once_for_all_who_read_it() -> None:
    graph = graph_of(
        {"type": "conv2d", "name": "left", "filters": 4, "kernel_size": 3, "inputs": "image"},
        {"type": "conv2d", "name": "right", "filters": 4, "kernel_size": 3, "inputs": "image"},
        {"type": "layer_norm", "name": "one", "inputs": "left"},
        {"type": "dense", "name": "two", "units": 4, "inputs": "left"},
        {"type": "concatenate", "name": "y", "inputs": ["one", "two"]},
        outputs=["y", "right"],
    )
    assert kinds(graph)["Transpose"] == 3
    assert_right(graph, random_weights(graph), random_inputs(graph))


@pytest.mark.parametrize(
    "layers",
    [
        [{"type": "dropout"}],
        [{"type": "permute", "axes": [0, 1, 2]}],
        [{"type": "reshape", "shape": [8, 8, 3]}],
        [{"type": "padding", "amounts": [0, 0]}],
        [{"type": "upsample2d", "factor": 1}],
    ],
    ids=lambda layers: layers[0]["type"],
)
def test_layers_that_do_nothing_leave_nothing_behind(layers: list[dict[str, Any]]) -> None:
    graph = graph_of({"type": "tanh"}, *layers, {"type": "relu", "name": "y"})
    assert kinds(graph) == {"Tanh": 1, "Relu": 1}
    assert_right(graph, {}, random_inputs(graph))


def test_a_permutation_starts_from_the_layout_at_hand() -> None:
    """Channel first is the layout that the convolution's result has: no operator; any other order is one."""
    convolution = {"type": "conv2d", "filters": 4, "kernel_size": [3, 2]}
    for axes, moves in (([2, 0, 1], 1), ([1, 0, 2], 2), ([2, 1, 0], 2)):
        graph = graph_of(convolution, {"type": "permute", "axes": axes})
        assert kinds(graph)["Transpose"] == moves
        assert_right(graph, random_weights(graph), random_inputs(graph))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("factor", [2, 3, [4, 1], [1, 5], [7, 6]])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_enlarging_stays_exact_far_from_the_origin(factor: Any, interpolation: str, precision: Precision) -> None:
    """onnxruntime's own coordinates drift with the position: by 30 times the bound for 64 pixels and factor 3."""
    graph = graph_of({"type": "upsample2d", "factor": factor, "interpolation": interpolation}, image=[60, 70, 2])
    if precision == "float32":
        assert kinds(graph)["Resize"] == (interpolation == "nearest" or factor in (2, [4, 1]))
    assert_right(graph, {}, random_inputs(graph), precision)


def test_flattening_one_channel_or_one_position_needs_no_move() -> None:
    for fields in ({"filters": 1, "kernel_size": 3}, {"filters": 5, "kernel_size": 8}):
        graph = graph_of({"type": "conv2d", **fields}, {"type": "flatten"})
        assert kinds(graph) == {"Transpose": 1, "Conv": 1, "Flatten": 1}
        assert_right(graph, random_weights(graph), random_inputs(graph))


IMAGE_LAYERS: list[dict[str, Any]] = [
    {"type": "conv2d", "filters": 4, "kernel_size": 3, "padding": "same"},
    {"type": "depthwise_conv2d", "kernel_size": [3, 2], "padding": "same"},
    {"type": "separable_conv2d", "filters": 4, "kernel_size": 2, "padding": "same"},
    {"type": "conv_transpose2d", "filters": 4, "kernel_size": 2, "padding": "same"},
    {"type": "dense", "units": 4, "activation": "tanh"},
    {"type": "max_pool2d", "kernel_size": 3, "strides": 1, "padding": "same"},
    {"type": "batch_norm"},
    {"type": "layer_norm", "axes": 2},
    {"type": "group_norm", "groups": 2},
    {"type": "rms_norm"},
    {"type": "prelu"},
    {"type": "elu"},
    {"type": "softmax", "axis": 1},
    {"type": "softmax", "axis": -1},
    {"type": "dropout"},
    {"type": "permute", "axes": [1, 0, 2]},
    {"type": "permute", "axes": [2, 0, 1]},
    {"type": "permute", "axes": [1, 2, 0]},
    {"type": "reshape", "shape": [4, 4, 4]},
    {"type": "padding", "amounts": [0, 0, 0]},
]
JOINS: list[dict[str, Any]] = [{"type": "add"}, {"type": "multiply"}]


@given(data=strategies.data())
@settings(max_examples=60, deadline=None)
def test_any_mixture_of_layouts_is_right(data: strategies.DataObject) -> None:
    """Every layer keeps the shape, so that any two values can be joined, whatever layouts they came to be in."""
    names = ["image"]
    layers: list[dict[str, Any]] = []
    for number in range(data.draw(strategies.integers(1, 9), label="layers")):
        joins = data.draw(strategies.booleans())
        fields = data.draw(strategies.sampled_from(JOINS if joins else IMAGE_LAYERS))
        sources = [data.draw(strategies.sampled_from(names[-3:])) for _ in range(2 if joins else 1)]
        layers.append({**fields, "name": f"n{number}", "inputs": sources})
        names.append(f"n{number}")
    read = {source for layer in layers for source in layer["inputs"]}
    outputs = [name for name in names[1:] if name not in read or data.draw(strategies.booleans())]
    if "image" not in read:
        return
    graph = graph_of(*layers, outputs=outputs, image=[4, 4, 4])
    assert_right(graph, random_weights(graph), random_inputs(graph, 2), "float64")


OUTPUTS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "an activation of its own": ([{"type": "dense", "name": "y", "units": 2, "activation": "softmax"}], ["y"]),
    "channels first inside": ([{"type": "conv2d", "name": "y", "filters": 2, "kernel_size": 1}], ["y"]),
    "both": ([{"type": "conv2d", "name": "y", "filters": 2, "kernel_size": 1, "activation": "relu"}], ["y"]),
    "an input": ([{"type": "dropout", "name": "y"}], ["y"]),
    "an input twice": ([{"type": "dropout", "name": "y"}, {"type": "dropout", "name": "z"}], ["z", "y"]),
    "another output": ([{"type": "tanh", "name": "y"}, {"type": "dropout", "name": "z"}], ["z", "y"]),
    "another's value": (
        [{"type": "conv2d", "name": "y", "filters": 2, "kernel_size": 1}, {"type": "dropout", "name": "z"}],
        ["z"],
    ),
    "read further on": (
        [
            {"type": "conv2d", "name": "y", "filters": 2, "kernel_size": 1, "activation": "relu"},
            {"type": "conv2d", "name": "z", "filters": 2, "kernel_size": 1, "inputs": "y"},
        ],
        ["z", "y"],
    ),
    "channels first as asked": (
        [
            {"type": "conv2d", "name": "y", "filters": 2, "kernel_size": 1},
            {"type": "permute", "name": "z", "axes": [2, 0, 1]},
        ],
        ["y", "z"],
    ),
}


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("label", OUTPUTS)
def test_outputs_have_the_specs_names_and_layout(label: str, precision: Precision) -> None:
    layers, outputs = OUTPUTS[label]
    graph = graph_of(*layers, outputs=outputs)
    weights = random_weights(graph)
    model = emit(graph, weights, precision=precision)
    assert [output.name for output in model.graph.output] == outputs
    for output in model.graph.output:
        dims = output.type.tensor_type.shape.dim
        assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", *graph.shape(graph.outputs[output.name])]
    assert_right(graph, weights, random_inputs(graph), precision)


def test_names_that_helpers_would_take_are_left_to_the_spec() -> None:
    block = {
        "layers": [{"type": "tanh", "name": "channels_first"}, {"type": "relu", "name": "sigmoid"}],
        "outputs": ["sigmoid"],
    }
    graph = resolve(
        ModelSpec.model_validate(
            {
                "inputs": {"x": {"shape": [4, 4, 2]}},
                "blocks": {"b": block},
                "layers": [
                    {"type": "block", "block": "b", "name": "constant"},
                    {"type": "conv2d", "name": "Conv", "filters": 2, "kernel_size": 1},
                    {"type": "silu", "name": "y"},
                ],
            }
        )
    )
    model = emit(graph, random_weights(graph))
    outputs = [output for node in model.graph.node for output in node.output]
    assert len(set(outputs)) == len(outputs)
    assert {node.name for node in graph.nodes} <= {node.name for node in model.graph.node}
    assert_right(graph, random_weights(graph), random_inputs(graph))


def test_a_shared_layer_holds_its_weights_once() -> None:
    graph = graph_of(
        {"type": "conv2d", "name": "c", "filters": 3, "kernel_size": 1},
        {"type": "shared", "name": "d", "layer": "c"},
        {"type": "dense", "name": "e", "units": 3},
        {"type": "shared", "name": "f", "layer": "e"},
    )
    weights = random_weights(graph)
    model = emit(graph, weights)
    assert sorted(tensor.name for tensor in model.graph.initializer) == sorted(graph.parameters)
    assert_right(graph, weights, random_inputs(graph))


def test_a_shared_layer_may_need_its_weights_in_two_layouts() -> None:
    """PReLU's slopes lie along the last axis of a value in the spec's layout, along the second of one in ONNX's."""
    graph = graph_of(
        {"type": "prelu", "name": "p"},
        {"type": "conv2d", "name": "c", "filters": 3, "kernel_size": 1},
        {"type": "shared", "name": "q", "layer": "p"},
        {"type": "global_max_pool"},
        {"type": "shared", "name": "r", "layer": "p"},
    )
    weights = random_weights(graph)
    names = [tensor.name for tensor in emit(graph, weights).graph.initializer]
    assert {"p.slope", "p.slope_2"} <= set(names)
    assert "p.slope_3" not in names
    assert_right(graph, weights, random_inputs(graph))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_batch_may_have_any_size(batch: int, precision: Precision) -> None:
    graph, weights, inputs = suite()
    program = OnnxProgram(graph, weights, Settings(precision=precision))
    # The cases have three samples: their first, or them and two of them again.
    rows = np.arange(batch) % 3
    found = program.predict({name: array[rows] for name, array in inputs.items()})
    for name, array in found.items():
        assert array.shape == (batch, *graph.shape(name))
        verdict = judge(array, suite_reference("float64")[name][rows], suite_reference("float32")[name][rows])
        assert verdict.passed, f"{SUITE[name].label}: {verdict}"


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_models_compute_what_the_reference_does(name: str, precision: Precision) -> None:
    graph = resolve(load_model(ROOT / "models" / f"{name}.yaml"))
    weights = initialize(graph, 3)
    for key, array in weights.items():
        if key.endswith(("running_mean", "running_variance")):
            array += stream(0, "onnx", key).uniform(0.1, 0.5, array.shape).astype(np.float32)
    images = {"image": stream(0, "onnx", name).uniform(size=(4, *graph.inputs["image"].shape)).astype(np.float32)}
    assert_right(graph, weights, images, precision)


@pytest.mark.parametrize("opset", [16, NEWEST_OPSET + 1, 0, -1])
def test_other_opsets_are_refused(opset: int) -> None:
    graph = graph_of({"type": "relu"})
    with pytest.raises(InputError) as caught:
        emit(graph, {}, opset=opset)
    (problem,) = caught.value.problems
    assert (problem.found, problem.allowed) == (str(opset), f"17 .. {opsets()[-1]}")


def test_weights_that_do_not_fit_are_refused() -> None:
    graph = graph_of({"type": "dense", "name": "d", "units": 2})
    with pytest.raises(InputError, match=r"'d\.kernel' is missing"):
        emit(graph, {"d.bias": np.zeros(2)})


def test_a_model_too_large_for_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unitrain.backends.onnx.model._MOST_BYTES", 100)
    graph = graph_of({"type": "dense", "name": "d", "units": 9})
    with pytest.raises(InputError, match="too large"):
        emit(graph, random_weights(graph))
