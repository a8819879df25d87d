"""The pinned subgradients and the far ends: every backend at kinks, at ties, and where careless formulas overflow."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from unitrain.backends import BACKENDS, TRAINING_BACKENDS, load_backend
from unitrain.backends.contract import Precision, Settings
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec
from unitrain.verify.verdict import judge

Array = np.ndarray[Any, Any]

# Kinks of all activations, both zeros, and numbers whose exponentials overflow or vanish.
KINKS = [0.0, -0.0, 3.0, -3.0, 6.0, 1e-4, -1e-4, 17.0, -17.0, 90.0, -90.0, 1000.0, -1000.0]
ACTIVATIONS: dict[str, dict[str, Any]] = {
    **{
        kind: {"type": kind}
        for kind in ("relu", "relu6", "prelu", "selu", "silu", "sigmoid", "hard_sigmoid", "hard_swish", "tanh")
    },
    "softplus": {"type": "softplus"},
    "leaky_relu": {"type": "leaky_relu", "slope": 0.3},
    "steep_leaky_relu": {"type": "leaky_relu", "slope": 1.5},
    "elu": {"type": "elu", "alpha": 0.4},
    "gelu": {"type": "gelu"},
    "gelu_tanh": {"type": "gelu", "approximate": "tanh"},
    "softmax": {"type": "softmax"},
}
# Whole numbers from a small range: nearly every window holds equal elements.
POOLS: dict[str, dict[str, Any]] = {
    "pool": {"type": "max_pool2d", "kernel_size": 2},
    "overlapping": {"type": "max_pool2d", "kernel_size": 3, "strides": 1, "padding": "same"},
    "gaps": {"type": "max_pool2d", "kernel_size": [1, 2], "strides": [2, 3]},
    "dilated": {"type": "max_pool2d", "kernel_size": 2, "strides": 1, "dilation": 2, "padding": 1},
    "strided": {"type": "max_pool2d", "kernel_size": [3, 2], "strides": 2, "padding": [[2, 1], [0, 1]]},
    "whole": {"type": "global_max_pool"},
    "line": {"type": "max_pool1d", "kernel_size": 3, "strides": 2, "padding": "same", "inputs": "steps"},
    "volume": {"type": "max_pool3d", "kernel_size": 2, "strides": 1, "inputs": "cube"},
    "padded_volume": {"type": "max_pool3d", "kernel_size": 2, "padding": "same", "inputs": "cube"},
    "dilated_volume": {"type": "max_pool3d", "kernel_size": 2, "dilation": 2, "padding": 1, "inputs": "cube"},
    "whole_line": {"type": "global_max_pool", "keep_axes": True, "inputs": "steps"},
}


@cache
def graph() -> Graph:
    layers = [
        *({**fields, "name": name, "inputs": "x"} for name, fields in ACTIVATIONS.items()),
        *({"inputs": "image", **fields, "name": name} for name, fields in POOLS.items()),
    ]
    return resolve(
        ModelSpec.model_validate(
            {
                "inputs": {
                    "x": {"shape": [len(KINKS)]},
                    "image": {"shape": [7, 6, 2]},
                    "steps": {"shape": [7, 2]},
                    "cube": {"shape": [4, 3, 5, 2]},
                },
                "layers": layers,
                "outputs": [layer["name"] for layer in layers],
            }
        )
    )


@cache
def gradients(backend: str, precision: Precision, name: str) -> dict[str, Array]:
    """Run the model, and send a gradient back from one output only; of a backend for inference, the output alone."""
    generator = np.random.default_rng(0)
    inputs = {
        "x": np.array([KINKS, KINKS[::-1]]),
        "image": generator.integers(-1, 2, (2, 7, 6, 2)).astype(float),
        "cube": generator.integers(-1, 2, (2, 4, 3, 5, 2)).astype(float),
        "steps": generator.integers(-1, 2, (2, 7, 2)).astype(float),
    }
    inputs = {key: array.astype(precision) for key, array in inputs.items()}
    if backend not in TRAINING_BACKENDS:
        return {"output": program(backend, precision).predict(inputs)[name]}
    shape = (2, *graph().shape(graph().outputs[name]))
    seed = {key: np.zeros((2, *graph().shape(node))) for key, node in graph().outputs.items()}
    seed[name] = generator.integers(1, 9, shape).astype(float)
    outputs, by_input, by_parameter = program(backend, precision).differentiate(
        inputs,
        {key: array.astype(precision) for key, array in seed.items()},
    )
    return {"output": outputs[name], **by_input, **by_parameter}


@cache
def program(backend: str, precision: Precision) -> Any:
    weights = {key: np.full(parameter.shape, 0.25, np.float32) for key, parameter in graph().parameters.items()}
    return load_backend(backend).compile(graph(), weights, Settings(precision=precision))


@pytest.mark.parametrize("name", [*ACTIVATIONS, *POOLS])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "numpy"])
def test_kinks_and_ends_are_those_of_the_reference(backend: str, precision: Precision, name: str) -> None:
    found = gradients(backend, precision, name)
    reference, numpy32 = gradients("numpy", "float64", name), gradients("numpy", "float32", name)
    assert found.keys() == (reference.keys() if backend in TRAINING_BACKENDS else {"output"})
    for tensor, array in found.items():
        assert np.isfinite(reference[tensor]).all()
        verdict = judge(array, reference[tensor], numpy32[tensor])
        assert verdict.passed, f"{name} in {backend}, {precision}, {tensor}: {verdict}\n{array}\n{reference[tensor]}"
