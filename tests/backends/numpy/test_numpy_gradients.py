"""Every backward pass, element by element, against central differences of the forward pass in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unitrain.backends.contract import Settings
from unitrain.backends.numpy import BACKEND, conv
from unitrain.backends.numpy.model import NumpyModel
from unitrain.graph.resolve import resolve
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize

Array = np.ndarray[Any, Any]

BATCH = 3
STEP = 1e-5

Shape = tuple[int, ...]
ROW: Shape = (4,)
SEQ: Shape = (5, 4)
IMG: Shape = (5, 4, 2)
TINY: Shape = (2, 3, 2)
WINDOWS_1D: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 2, "padding": "same", "strides": 2},
    {"kernel_size": 2, "padding": [1, 0], "dilation": 2},
    {"kernel_size": 3, "padding": 1, "strides": 1},
]
WINDOWS_2D: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": [3, 2], "padding": "same"},
    {"kernel_size": 3, "padding": "same", "strides": 2},
    {"kernel_size": [1, 2], "strides": [2, 1]},
    {"kernel_size": 2, "padding": [[1, 0], [0, 1]], "dilation": [2, 1], "strides": 1},
    {"kernel_size": 2, "padding": 1, "strides": [3, 2]},
]
Option = tuple[dict[str, Any], list[Shape]]
OPTIONS: dict[str, list[Option]] = {
    "dense": [({"units": 3}, [ROW]), ({"units": 2, "use_bias": False}, [SEQ])],
    "conv1d": [
        *(({"filters": 2, **window}, [SEQ]) for window in WINDOWS_1D),
        ({"filters": 4, "kernel_size": 2, "groups": 2, "use_bias": False}, [SEQ]),
    ],
    "conv2d": [
        *(({"filters": 3, **window}, [IMG]) for window in WINDOWS_2D),
        ({"filters": 2, "kernel_size": 1}, [IMG]),
        ({"filters": 4, "kernel_size": 2, "groups": 2, "strides": 2, "padding": 1}, [IMG]),
        ({"filters": 4, "kernel_size": 2, "groups": 4, "use_bias": False}, [(3, 3, 4)]),
    ],
    "depthwise_conv1d": [({**window, "multiplier": 2}, [SEQ]) for window in WINDOWS_1D],
    "depthwise_conv2d": [
        *((window, [IMG]) for window in WINDOWS_2D),
        ({"kernel_size": 2, "multiplier": 2, "use_bias": False}, [IMG]),
    ],
    "separable_conv1d": [({"filters": 2, **window}, [SEQ]) for window in WINDOWS_1D],
    "separable_conv2d": [
        *(({"filters": 3, **window}, [IMG]) for window in WINDOWS_2D),
        ({"filters": 3, "kernel_size": 2, "multiplier": 2, "use_bias": False}, [IMG]),
    ],
    "conv_transpose1d": [
        ({"filters": 2, "kernel_size": kernel, "strides": stride, "padding": padding}, [(3, 2)])
        for kernel, stride in ((3, 1), (2, 2), (2, 3), (4, 2))
        for padding in ("valid", "same")
    ],
    "conv_transpose2d": [
        *(
            ({"filters": 2, "kernel_size": kernel, "strides": stride, "padding": padding}, [TINY])
            for kernel, stride in ((3, 2), ([1, 3], [2, 1]), ([4, 2], [2, 3]))
            for padding in ("valid", "same")
        ),
        ({"filters": 2, "kernel_size": 2, "use_bias": False}, [TINY]),
    ],
    "max_pool1d": [(window, [SEQ]) for window in WINDOWS_1D],
    "max_pool2d": [(window, [IMG]) for window in WINDOWS_2D],
    "average_pool1d": [(window, [SEQ]) for window in WINDOWS_1D],
    "average_pool2d": [(window, [IMG]) for window in WINDOWS_2D],
    "global_average_pool": [({}, [SEQ]), ({"keep_axes": True}, [IMG])],
    "global_max_pool": [({}, [SEQ]), ({"keep_axes": True}, [IMG])],
    "batch_norm": [
        ({}, [ROW]),
        ({"epsilon": 0.1, "momentum": 0.5}, [IMG]),
        ({"use_scale": False}, [SEQ]),
        ({"use_bias": False}, [SEQ]),
    ],
    "layer_norm": [
        ({}, [ROW]),
        ({"axes": 2, "epsilon": 0.1}, [IMG]),
        ({"use_scale": False}, [SEQ]),
        ({"use_bias": False, "axes": 3}, [IMG]),
    ],
    "group_norm": [
        ({"groups": 2}, [ROW]),
        ({"groups": 1, "epsilon": 0.1}, [IMG]),
        ({"groups": 2, "use_scale": False, "use_bias": False}, [SEQ]),
    ],
    "rms_norm": [({}, [ROW]), ({"epsilon": 0.1, "use_scale": False}, [IMG])],
    "dropout": [({"rate": 0.4}, [IMG]), ({"rate": 0.0}, [ROW])],
    "embedding": [({"vocabulary": 5, "width": 2}, [(4,)])],
    "leaky_relu": [({}, [SEQ]), ({"slope": 0.5}, [SEQ])],
    "prelu": [({}, [ROW]), ({}, [IMG])],
    "elu": [({}, [SEQ]), ({"alpha": 0.5}, [SEQ])],
    "gelu": [({}, [SEQ]), ({"approximate": "tanh"}, [SEQ])],
    "softmax": [({}, [ROW]), ({"axis": 0}, [IMG]), ({"axis": -2}, [IMG])],
    "reshape": [({"shape": [2, -1]}, [IMG])],
    "permute": [({"axes": [2, 0, 1]}, [IMG]), ({"axes": [1, 0]}, [SEQ])],
    "padding": [
        ({"amounts": amounts, "mode": mode, "value": 2.0}, [IMG])
        for amounts in ([[1, 2], [0, 3]], [2], [[0, 0], 1, [1, 0]])
        for mode in ("constant", "reflect", "edge")
    ],
    "upsample1d": [({}, [SEQ]), ({"factor": 3}, [SEQ])],
    "upsample2d": [
        ({"factor": factor, "interpolation": interpolation}, [IMG])
        for factor in (2, [3, 1], [1, 4])
        for interpolation in ("nearest", "bilinear")
    ],
    "add": [({}, [SEQ, SEQ]), ({}, [IMG, (1, 1, 2), (5, 1, 1)])],
    "multiply": [({}, [SEQ, SEQ]), ({}, [IMG, (1, 4, 1), (1, 1, 2)])],
    "concatenate": [({}, [SEQ, (5, 2)]), ({"axis": 0}, [SEQ, (2, 4), SEQ]), ({"axis": -2}, [IMG, (5, 1, 2)])],
}
for kind in (
    "relu",
    "relu6",
    "selu",
    "silu",
    "sigmoid",
    "hard_sigmoid",
    "hard_swish",
    "tanh",
    "softplus",
    "flatten",
):
    OPTIONS[kind] = [({}, [IMG])]

CASES = [(kind, fields, shapes) for kind, options in OPTIONS.items() for fields, shapes in options]


def test_every_layer_is_among_the_cases() -> None:
    assert OPTIONS.keys() == LAYER_TYPES.keys()


def central_difference(
    model: NumpyModel, inputs: dict[str, Array], dy: Array, training: bool, at: Array
) -> Array:
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
@pytest.mark.parametrize(("kind", "fields", "shapes"), CASES, ids=lambda value: str(value).replace(" ", ""))
def test_backward_is_the_derivative_of_forward(
    kind: str, fields: dict[str, Any], shapes: list[Shape], training: bool
) -> None:
    generator = np.random.default_rng(0)
    dtype = "integer" if kind == "embedding" else "float"
    names = [f"x{position}" for position in range(len(shapes))]
    spec = {
        "inputs": {
            name: {"shape": list(shape), "dtype": dtype} for name, shape in zip(names, shapes, strict=True)
        },
        "layers": [{"type": kind, "name": "y", "inputs": names, **fields}],
    }
    graph = resolve(ModelSpec.model_validate(spec))
    weights = {
        name: generator.uniform(0.5, 1.5, parameter.shape) for name, parameter in graph.parameters.items()
    }
    inputs: dict[str, Array] = {}
    for name, shape in zip(names, shapes, strict=True):
        values = 2 * generator.normal(size=(BATCH, *shape))
        inputs[name] = (
            generator.integers(0, fields["vocabulary"], values.shape) if kind == "embedding" else values
        )
    dy = generator.normal(size=(BATCH, *graph.shape("y")))

    model = BACKEND.build(graph, weights, Settings(precision="float64"))
    model.forward(inputs, training)
    input_gradients, parameter_gradients = model.backward({"y": dy})

    assert input_gradients.keys() == ({*names} if dtype == "float" else set())
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
