"""Every backward pass, element by element, against central differences of the forward pass in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance.cases import CASES, Case, case_graph, case_inputs, case_output_gradient, case_weights

from unitrain.backends.contract import Settings
from unitrain.backends.numpy import BACKEND, conv
from unitrain.backends.numpy.model import NumpyModel
from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize

Array = np.ndarray[Any, Any]

STEP = 1e-5
# Rounding has no derivative: what goes straight through instead is held to torch's in test_torch_quantize.py.
SMOOTH = [case for case in CASES if "quantize" not in case.label]


def central_difference(model: NumpyModel, inputs: dict[str, Array], dy: Array, training: bool, at: Array) -> Array:
    """Differentiate ``sum(dy * output)`` by every element of ``at``, an array that the model reads."""
    gradient = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        middle, sides = at[place], []
        for offset in (STEP, -STEP):
            at[place] = middle + offset
            (y,) = model.forward(inputs, training).values()
            sides.append((y * dy).sum())
        at[place] = middle
        gradient[place] = (sides[0] - sides[1]) / (2 * STEP)
    return gradient


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.label)
def test_backward_is_the_derivative_of_forward(case: Case, training: bool) -> None:
    graph = case_graph(case)
    inputs = {name: x if x.dtype.kind == "i" else x.astype(np.float64) for name, x in case_inputs(case).items()}
    dy = case_output_gradient(case).astype(np.float64)

    model = BACKEND.build(graph, case_weights(case), Settings(precision="float64"))
    model.forward(inputs, training)
    input_gradients, parameter_gradients = model.backward({"y": dy})

    assert input_gradients.keys() == {name for name, x in inputs.items() if x.dtype.kind == "f"}
    assert parameter_gradients.keys() == {*graph.trainable}
    found = {**input_gradients, **parameter_gradients}
    for name, gradient in found.items():
        at = inputs[name] if name in inputs else model.weights[name]
        expected = central_difference(model, inputs, dy, training, at)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("conv2d", {"filters": 4, "kernel_size": 3, "groups": 2, "strides": 2, "padding": "same"}),
        ("conv2d", {"filters": 4, "kernel_size": 3, "dilation": 2}),
        ("conv_transpose2d", {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"}),
    ],
)
def test_windows_gathered_row_by_row_are_those_gathered_at_once(
    kind: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {
        "inputs": {"x": {"shape": [9, 7, 4]}},
        "layers": [{"type": kind, "name": "y", **fields}],
    }
    graph = resolve(ModelSpec.model_validate(spec))
    model = BACKEND.build(graph, initialize(graph, 0), Settings(precision="float64"))
    generator = np.random.default_rng(0)
    x, dy = generator.normal(size=(2, 9, 7, 4)), generator.normal(size=(2, *graph.shape("y")))
    at_once = (model.forward(x), *model.backward({"y": dy}))
    monkeypatch.setattr(conv, "SLAB_BYTES", 1)
    by_row = (model.forward(x), *model.backward({"y": dy}))
    for expected, found in zip(at_once, by_row, strict=True):
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-13, err_msg=name)
