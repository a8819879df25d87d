"""Every layer in 16 bits on every backend that computes in them, against the float64 reference by the verdict rule."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from conformance.cases import CASES, case_inputs, case_output_gradient, case_weights, suite_graph

from unitrain.backends import load_backend
from unitrain.backends.contract import Precision, Program, Settings
from unitrain.backends.precision import MIXED
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.verify.growth import layer_growth, parameter_growth
from unitrain.verify.rounding import rounded, rounded_floats
from unitrain.verify.verdict import judge
from unitrain.weights.random import stream

Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]
RUNS: list[tuple[str, Precision]] = [
    ("torch", "bfloat16"),
    ("torch", "float16"),
    ("keras", "bfloat16"),
    ("keras", "float16"),
    ("onnx", "float16"),
    ("torch", "mixed_bfloat16"),
    ("torch", "mixed_float16"),
    ("keras", "mixed_bfloat16"),
    ("keras", "mixed_float16"),
]
SUITE = {f"{case.layer.type}_{number}": case for number, case in enumerate(CASES)}
STEP = 5


def compiled(backend: str, precision: Precision, graph: Graph, weights: Tensors) -> Program:
    return load_backend(backend).compile(graph, weights, Settings(precision=precision, seed=7))


def ran(program: Program, trains: bool, inputs: Tensors, upstream: Tensors, training: bool) -> dict[str, Tensors]:
    if not trains:
        return {"output": program.predict(inputs)}
    results = program.differentiate(inputs, upstream, training=training, step=STEP)
    return dict(zip(("output", "input", "parameter"), results, strict=True))


@cache
def suite(backend: str, precision: Precision, given: Precision, training: bool) -> dict[str, Tensors]:
    weights: Tensors = {}
    inputs: Tensors = {}
    for name, case in SUITE.items():
        weights |= case_weights(case, name)
        inputs |= case_inputs(case, name)
    upstream = {name: case_output_gradient(case) for name, case in SUITE.items()}
    program = compiled(backend, precision, suite_graph(SUITE), rounded_floats(weights, given))
    trains = load_backend(backend).trains
    return ran(program, trains, rounded_floats(inputs, given), rounded_floats(upstream, given), training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("backend", "precision"), RUNS)
def test_every_layer_loses_no_more_than_rounding(backend: str, precision: Precision, training: bool) -> None:
    if training and not load_backend(backend).trains:
        pytest.skip("it runs inference only")
    found = suite(backend, precision, precision, training)
    reference = suite("numpy", "float64", precision, training)
    narrow = suite("numpy", "float32", precision, training)
    failed = []
    for kind, arrays in found.items():
        assert arrays.keys() == reference[kind].keys()
        for name, array in arrays.items():
            assert array.dtype == np.float32, name
            # Gradients by what mixed precision keeps in float32, such as scales of norms, are not rounded to 16 bits.
            if kind != "parameter" or precision not in MIXED:
                np.testing.assert_array_equal(array, rounded(array, precision), err_msg=f"{name}: not of {precision}")
            verdict = judge(array, reference[kind][name], narrow[kind][name], precision=precision)
            if not verdict.passed:
                failed.append(f"{kind} {name}: {verdict}")
    assert not failed, "\n".join(failed)


# Layers that frameworks compute wrongly in 16 bits when left to themselves, and the batches that show it.
LONG_SUMS: list[tuple[str, dict[str, Any], tuple[int, ...], int]] = [
    ("gradient by bias", {"type": "separable_conv1d", "filters": 2, "kernel_size": 2}, (40, 4), 256),
    (
        "gradient by bias of a transposed one",
        {"type": "conv_transpose1d", "filters": 2, "kernel_size": 2},
        (40, 3),
        256,
    ),
    ("gradient by a depthwise kernel", {"type": "depthwise_conv2d", "kernel_size": 3}, (32, 32, 4), 16),
    ("layer norm's bias", {"type": "layer_norm"}, (512, 4), 32),
    ("layer norm of two", {"type": "layer_norm"}, (512, 2), 2),
    ("group norm of two", {"type": "group_norm", "groups": 2}, (4,), 512),
    ("edges of hard sigmoid", {"type": "hard_sigmoid"}, (64,), 64),
    ("edges of hard swish", {"type": "hard_swish"}, (64,), 64),
    ("means of wide windows", {"type": "average_pool2d", "kernel_size": 15, "padding": "same"}, (32, 32, 4), 2),
]


@pytest.mark.parametrize("what", [item[0] for item in LONG_SUMS])
@pytest.mark.parametrize(("backend", "precision"), RUNS)
def test_long_sums_and_close_edges(backend: str, precision: Precision, what: str) -> None:
    layer, shape, batch = next(item[1:] for item in LONG_SUMS if item[0] == what)
    graph = resolve(
        ModelSpec.model_validate({"inputs": {"x": {"shape": list(shape)}}, "layers": [{"name": "y", **layer}]})
    )
    weights = {
        name: rounded(stream(0, "weight", name).uniform(0.5, 1.5, parameter.shape), precision)
        for name, parameter in graph.parameters.items()
    }
    x = rounded(1.5 * stream(0, "input").normal(size=(batch, *shape)), precision)
    if "edges" in what:
        edge = np.float32(3.0)
        x[:, :2] = rounded(np.nextafter(np.array([edge, -edge]) * (1 - 2.0**-9), np.float32(0)), precision)
    dy = rounded(stream(0, "gradient").normal(size=(batch, *graph.shape("y"))), precision)
    trains = load_backend(backend).trains
    results = [
        ran(compiled(name, works, graph, weights), name != "onnx", {"x": x}, {"y": dy}, trains)
        for name, works in ((backend, precision), ("numpy", "float64"), ("numpy", "float32"))
    ]
    node = graph.node("y")
    for kind, arrays in results[0].items():
        growth = (
            parameter_growth(node, batch, precision)
            if kind == "parameter"
            else layer_growth(node, batch, True, precision)
        )
        for name, array in arrays.items():
            verdict = judge(array, *(other[kind][name] for other in results[1:]), growth=growth, precision=precision)
            assert verdict.passed, f"{kind} {name}: {verdict}"


@pytest.mark.parametrize(("backend", "precision"), RUNS)
def test_weights_come_back_rounded_once(backend: str, precision: Precision) -> None:
    spec = {"inputs": {"x": {"shape": [4]}}, "layers": [{"type": "dense", "name": "y", "units": 3}]}
    graph = resolve(ModelSpec.model_validate(spec))
    weights = {name: stream(0, name).normal(size=p.shape).astype(np.float32) for name, p in graph.parameters.items()}
    program = compiled(backend, precision, graph, weights)
    for name, array in program.weights().items():
        kept = weights[name] if precision in MIXED else rounded(weights[name], precision)
        np.testing.assert_array_equal(array, kept)
    for found in (program.predict({"x": np.zeros((0, 4), np.float32)}), program.activations({"x": np.ones((2, 4))})):
        assert found["y"].dtype == np.float32


def test_what_a_backend_lacks_is_said() -> None:
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [4]}}, "layers": [{"type": "relu"}]}))
    for backend, precision in (("numpy", "float16"), ("numpy", "bfloat16"), ("onnx", "bfloat16")):
        settings = Settings(precision=precision)  # type: ignore[arg-type]  # a Precision
        for make in (load_backend(backend).compile, load_backend(backend).build):
            with pytest.raises(InputError, match=f"'{backend}' does not compute in {precision}"):
                make(graph, {}, settings)


def test_a_keras_model_of_16_bits_is_saved_and_loaded(tmp_path: Any) -> None:
    import keras

    layers = [
        {"type": "depthwise_conv2d", "name": "a", "kernel_size": 3},
        {"type": "average_pool2d", "name": "b", "kernel_size": 2},
        {"type": "flatten", "name": "c"},
        {"type": "dense", "name": "d", "units": 3},
    ]
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [8, 8, 2]}}, "layers": layers}))
    weights = {name: stream(0, name).normal(size=p.shape).astype(np.float32) for name, p in graph.parameters.items()}
    model = load_backend("keras").build(graph, weights, Settings(precision="bfloat16"))
    assert all(variable.dtype == "bfloat16" for variable in model.trainable_variables)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = stream(0, "x").normal(size=(4, 8, 8, 2)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(again(x), dtype=np.float32), np.asarray(model(x), dtype=np.float32))
