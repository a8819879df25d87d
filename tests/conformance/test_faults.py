"""Faults that careless ports really make, planted one by one: the verdict rule must fail each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance.cases import BATCH, IMG, LONG, ROW, SEQ, WIDE, Array, Shape

from unitrain.backends.contract import Settings
from unitrain.backends.numpy import BACKEND
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec
from unitrain.verify.verdict import judge
from unitrain.weights.random import stream

Fields = dict[str, Any]
CONV = {"type": "conv2d", "filters": 3, "kernel_size": 3, "strides": 2}
TRANSPOSED = {"type": "conv_transpose1d", "filters": 2, "kernel_size": 3, "strides": 2}
FLATTENED: Shape = (5, 4, 2)

# What is meant, what a framework does by default, and the input shape.
FAULTS: dict[str, tuple[list[Fields], list[Fields], Shape]] = {
    "layer norm epsilon": ([{"type": "layer_norm"}], [{"type": "layer_norm", "epsilon": 1e-6}], ROW),
    "batch norm epsilon": ([{"type": "batch_norm"}], [{"type": "batch_norm", "epsilon": 1e-3}], SEQ),
    "group norm epsilon": (
        [{"type": "group_norm", "groups": 2}],
        [{"type": "group_norm", "groups": 2, "epsilon": 1e-3}],
        WIDE,
    ),
    "RMS norm epsilon": ([{"type": "rms_norm"}], [{"type": "rms_norm", "epsilon": 1e-5}], ROW),
    "GELU by tanh": ([{"type": "gelu"}], [{"type": "gelu", "approximate": "tanh"}], IMG),
    "leaky ReLU slope": ([{"type": "leaky_relu"}], [{"type": "leaky_relu", "slope": 0.3}], SEQ),
    "same padding at the start": (
        [{**CONV, "kernel_size": 2, "padding": "same"}],
        [{**CONV, "kernel_size": 2, "padding": [[1, 0], [0, 0]]}],
        IMG,
    ),
    "padding by kernel // 2": ([{**CONV, "padding": "same"}], [{**CONV, "padding": 1}], WIDE),
    "padding counted in a mean": (
        [{"type": "average_pool1d", "kernel_size": 3, "strides": 2, "padding": 1}],
        [{"type": "padding", "amounts": [1]}, {"type": "average_pool1d", "kernel_size": 3, "strides": 2}],
        LONG,
    ),
    "zeros around a maximum": (
        [{"type": "max_pool1d", "kernel_size": 2, "strides": 2, "padding": 1}],
        [{"type": "padding", "amounts": [1]}, {"type": "max_pool1d", "kernel_size": 2, "strides": 2}],
        LONG,
    ),
    "flatten by channels first": (
        [{"type": "flatten"}],
        [{"type": "permute", "axes": [2, 0, 1]}, {"type": "flatten"}],
        FLATTENED,
    ),
    "nearest for bilinear": (
        [{"type": "upsample2d", "interpolation": "bilinear"}],
        [{"type": "upsample2d", "interpolation": "nearest"}],
        IMG,
    ),
    "softmax over another axis": ([{"type": "softmax"}], [{"type": "softmax", "axis": 0}], SEQ),
    "edge repeated in a mirror": (
        [{"type": "padding", "amounts": [2], "mode": "reflect"}],
        [{"type": "padding", "amounts": [2], "mode": "edge"}],
        SEQ,
    ),
    "dropout scaled by another rate": (
        [{"type": "dropout", "name": "drop", "rate": 0.1}],
        [{"type": "dropout", "name": "drop", "rate": 0.1001}],
        IMG,
    ),
}


def graph_of(layers: list[Fields], shape: Shape) -> Graph:
    """Resolve a model whose last layer, and the owner of all weights, is called ``y``."""
    named = [*layers[:-1], {"name": "y", **layers[-1]}]
    return resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": list(shape)}}, "layers": named}))


def tensors(layers: list[Fields], shape: Shape, precision: Any) -> dict[str, Array]:
    graph = graph_of(layers, shape)
    weights = {
        name: stream(1, "weight", name).uniform(0.5, 1.5, parameter.shape).astype(np.float32)
        for name, parameter in graph.parameters.items()
    }
    x = stream(1, "input").normal(size=(BATCH, *shape)).astype(np.float32)
    (output,) = graph.outputs
    dy = stream(1, "gradient").normal(size=(BATCH, *graph.shape(output))).astype(np.float32)
    program = BACKEND.compile(graph, weights, Settings(precision=precision))
    outputs, by_input, by_parameter = program.differentiate({"x": x}, {output: dy})
    return {"output": outputs[output], **by_input, **by_parameter}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails(fault: str) -> None:
    right, wrong, shape = FAULTS[fault]
    reference, numpy32 = tensors(right, shape, "float64"), tensors(right, shape, "float32")
    found = tensors(wrong, shape, "float32")
    assert found.keys() == reference.keys()
    verdicts = {name: judge(found[name], reference[name], numpy32[name]) for name in reference}
    assert not all(verdict.passed for verdict in verdicts.values()), verdicts
    assert all(judge(numpy32[name], reference[name], numpy32[name]).passed for name in reference)
