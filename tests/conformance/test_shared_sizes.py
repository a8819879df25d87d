"""Layers that are used again on inputs of another size: what is prepared for one size must not be kept for both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unitrain.backends import load_backend
from unitrain.backends.contract import Settings
from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize

ATTENTION = [
    {"type": "attention", "heads": 2, "causal": causal, **({"position": position} if position else {})}
    for position in (None, "rotary", "alibi")
    for causal in (True, False)
]
ATTENTION.append({"type": "attention", "heads": 2, "causal": True, "position": "alibi", "dropout": 0.4})
WINDOWS = [
    {"kernel_size": kernel, "strides": strides, "padding": padding}
    for kernel, strides, padding in ((3, 1, "same"), (3, 2, "same"), (2, 2, "same"), (3, 2, "valid"))
]
# What a layer is, and the shapes of the two inputs that it is applied to.
CASES: list[tuple[dict[str, Any], list[int], list[int]]] = [
    *((layer, [6, 8], [4, 8]) for layer in ATTENTION),
    *((layer, [4, 8], [6, 8]) for layer in ATTENTION),
    *(({"type": "conv1d", "filters": 4, **window}, [7, 3], [10, 3]) for window in WINDOWS),
    *(({"type": "conv2d", "filters": 4, **window}, [7, 8, 3], [10, 5, 3]) for window in WINDOWS),
    *(({"type": "conv3d", "filters": 4, **window}, [7, 6, 5, 3], [4, 5, 7, 3]) for window in WINDOWS),
    *(({"type": "depthwise_conv2d", **window}, [7, 8, 3], [10, 5, 3]) for window in WINDOWS),
    *(({"type": "separable_conv2d", "filters": 4, **window}, [7, 8, 3], [10, 5, 3]) for window in WINDOWS),
    *(({"type": "conv_transpose1d", "filters": 4, **window}, [7, 3], [4, 3]) for window in WINDOWS),
    *(({"type": "conv_transpose2d", "filters": 4, **window}, [7, 8, 3], [4, 5, 3]) for window in WINDOWS),
    ({"type": "conv1d", "filters": 4, "kernel_size": 3, "padding": "causal"}, [7, 3], [10, 3]),
    ({"type": "lstm", "units": 4}, [6, 3], [4, 3]),
    ({"type": "gru", "units": 4}, [6, 3], [4, 3]),
    ({"type": "class_token"}, [6, 4], [4, 4]),
    ({"type": "patch_embedding", "patch": 2, "width": 5}, [6, 4, 3], [4, 8, 3]),
    ({"type": "squeeze_excite", "reduced": 2}, [6, 5, 4], [4, 7, 4]),
    ({"type": "dense", "units": 5}, [6, 4], [3, 2, 4]),
    ({"type": "layer_norm"}, [6, 4], [3, 2, 4]),
    ({"type": "batch_norm"}, [6, 5, 4], [4, 7, 4]),
    ({"type": "group_norm", "groups": 2}, [6, 5, 4], [4, 7, 4]),
    ({"type": "instance_norm"}, [6, 5, 4], [4, 7, 4]),
]


@pytest.mark.parametrize("backend", ["keras", "torch", "onnx"])
@pytest.mark.parametrize(("layer", "first", "second"), CASES)
def test_a_layer_is_applied_to_two_sizes(
    backend: str, layer: dict[str, Any], first: list[int], second: list[int]
) -> None:
    spec = {
        "inputs": {"a": {"shape": first}, "b": {"shape": second}},
        "layers": [
            {**layer, "name": "layer", "inputs": "a"},
            {"type": "shared", "name": "again", "layer": "layer", "inputs": "b"},
        ],
        "outputs": ["layer", "again"],
    }
    graph = resolve(ModelSpec.model_validate(spec))
    weights = initialize(graph, 0)
    generator = np.random.default_rng(0)
    inputs = {name: generator.normal(size=(3, *given.shape)).astype(np.float32) for name, given in graph.inputs.items()}
    exact = load_backend("numpy").compile(graph, weights, Settings(precision="float64"))
    program = load_backend(backend).compile(graph, weights, Settings())
    expected = exact.predict(inputs)
    close(program.predict(inputs), expected)
    if backend != "onnx":
        upstream = {name: generator.normal(size=array.shape).astype(np.float32) for name, array in expected.items()}
        for found, wanted in zip(
            program.differentiate(inputs, upstream), exact.differentiate(inputs, upstream), strict=True
        ):
            close(found, wanted)


def close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4 * np.abs(array).max(), err_msg=name)
