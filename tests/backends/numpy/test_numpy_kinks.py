"""Where a derivative does not exist or a value could overflow: the exact numbers that the spec pins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unitrain.backends.contract import Settings
from unitrain.backends.numpy import BACKEND
from unitrain.backends.numpy.registry import IMPLEMENTATIONS, Context
from unitrain.graph.node import Node
from unitrain.graph.resolve import resolve
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize

SELU_SLOPE = 1.0507009873554804934193349852946 * 1.6732632423543772848170429916717


def gradient_of(layer: dict[str, Any], x: np.ndarray[Any, Any]) -> Any:
    """Return output and input gradient of one layer, for an upstream gradient of ones."""
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": list(x.shape[1:])}}, "layers": [layer]}))
    program = BACKEND.compile(graph, initialize(graph, 0), Settings(precision="float64"))
    (output,) = graph.outputs
    shape = (len(x), *graph.shape(graph.outputs[output]))
    outputs, inputs, _ = program.differentiate({"x": x}, {output: np.ones(shape)})
    return outputs[output], inputs["x"]


@pytest.mark.parametrize(
    ("layer", "at", "slope"),
    [
        ({"type": "relu"}, 0.0, 0.0),
        ({"type": "relu"}, -0.0, 0.0),
        ({"type": "relu6"}, 0.0, 0.0),
        ({"type": "relu6"}, 6.0, 0.0),
        ({"type": "leaky_relu"}, 0.0, 0.01),
        ({"type": "leaky_relu", "slope": 0.3}, 0.0, 0.3),
        ({"type": "prelu"}, 0.0, 0.25),
        ({"type": "elu", "alpha": 0.7}, 0.0, 0.7),
        ({"type": "selu"}, 0.0, SELU_SLOPE),
        ({"type": "hard_sigmoid"}, -3.0, 0.0),
        ({"type": "hard_sigmoid"}, 3.0, 0.0),
        ({"type": "hard_swish"}, -3.0, 0.0),
        ({"type": "hard_swish"}, 3.0, 1.0),
        ({"type": "sigmoid"}, 0.0, 0.25),
        ({"type": "softplus"}, 0.0, 0.5),
    ],
)
def test_the_slope_at_a_kink_is_the_pinned_one(layer: dict[str, Any], at: float, slope: float) -> None:
    _, dx = gradient_of(layer, np.full((1, 1), at))
    np.testing.assert_allclose(dx, [[slope]], rtol=1e-15)


def test_of_equal_maxima_the_first_by_rows_gets_the_gradient() -> None:
    x = np.zeros((1, 4, 4, 1))
    x[0, 1, 0, 0] = x[0, 0, 1, 0] = 5.0  # a tie in the first window; (0, 1) comes before (1, 0)
    _, dx = gradient_of({"type": "max_pool2d", "kernel_size": 2}, x)
    expected = np.array([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(dx[0, :, :, 0], expected)


def test_overlapping_windows_add_up_at_their_first_maximum() -> None:
    _, dx = gradient_of({"type": "max_pool1d", "kernel_size": 3, "strides": 1}, np.ones((1, 5, 1)))
    np.testing.assert_array_equal(dx[0, :, 0], [1, 1, 1, 0, 0])


def test_padding_never_wins_a_maximum() -> None:
    x = -np.ones((1, 3, 3, 1))
    y, dx = gradient_of({"type": "max_pool2d", "kernel_size": 2, "padding": 1}, x)
    np.testing.assert_array_equal(y, -np.ones((1, 2, 2, 1)))
    assert dx.sum() == 4.0


def test_padding_is_not_counted_in_a_mean() -> None:
    y, dx = gradient_of({"type": "average_pool1d", "kernel_size": 2, "padding": 1}, np.ones((1, 3, 1)))
    np.testing.assert_array_equal(y[0, :, 0], [1, 1])
    np.testing.assert_array_equal(dx[0, :, 0], [1, 0.5, 0.5])


def test_of_equal_global_maxima_the_first_gets_the_gradient() -> None:
    _, dx = gradient_of({"type": "global_max_pool"}, np.ones((1, 2, 3, 2)))
    expected = np.zeros((2, 3, 2))
    expected[0, 0] = 1
    np.testing.assert_array_equal(dx[0], expected)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("sigmoid", [0.0, 1.0]),
        ("softplus", [0.0, 1e4]),
        ("elu", [-1.0, 1e4]),
        ("silu", [0.0, 1e4]),
        ("softmax", [0.0, 1.0]),
        ("gelu", [0.0, 1e4]),
        ("tanh", [-1.0, 1.0]),
    ],
)
def test_large_values_neither_overflow_nor_warn(layer: str, expected: list[float], precision: str) -> None:
    """The layer function itself is called: a whole pass keeps NumPy's warnings silent."""
    spec = LAYER_TYPES[layer].model_validate({"type": layer})
    node = Node("layer", spec, ("x",), ((2,),), (2,), "float", {})
    context = Context(node, training=True, seed=0, step=0, wanted=(True,), updates={})
    x = np.array([[-1e4, 1e4]], dtype=precision)
    with np.errstate(all="raise", under="ignore"):
        y, backward = IMPLEMENTATIONS[type(spec)](spec, context, {}, x)
        (dx,), _ = backward(np.ones_like(x))
    np.testing.assert_allclose(y, [expected], atol=1e-30)
    assert dx is not None
    assert np.isfinite(dx).all()
    assert y.dtype == dx.dtype == np.dtype(precision)
