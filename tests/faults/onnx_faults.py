"""Faults of the ONNX models that are written: defaults of its operators, layouts, attributes meaning something else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from faults.layer_faults import GROUP, LARGEST, LAYER, MEAN, NORM, RMS, image_fault, row_fault
from faults.planting import Fault, Fields, Plant, attribute, entry

import unitrain.backends.onnx.model
from unitrain.backends.onnx import registry
from unitrain.backends.onnx.emitter import Emitter, LayerEmitter, Value
from unitrain.spec.layers import LAYER_TYPES

Emission = Callable[..., Value]
_ = unitrain.backends.onnx.model  # imported for what it registers


def port(kind: str, call: Callable[[Emission, Any, LayerEmitter, Value], Value], name: str = "") -> Plant:
    """ONNX is emitted by ``call(emit, layer, b, *inputs)`` for a layer, or the one called ``name``."""
    layer_type = LAYER_TYPES[kind]

    def plant() -> AbstractContextManager[None]:
        emit = registry.IMPLEMENTATIONS[layer_type]

        def wrong(layer: Any, b: LayerEmitter, *inputs: Value) -> Value:
            return emit(layer, b, *inputs) if name and layer.name != name else call(emit, layer, b, *inputs)

        return entry(registry.IMPLEMENTATIONS, layer_type, wrong)

    return plant


def other_attributes(kind: str, **attributes: Any) -> Plant:
    """All operators of a kind are written with other attributes; None leaves one out."""

    def plant() -> AbstractContextManager[None]:
        add = Emitter.add

        def wrong(self: Emitter, operator: str, name: str, inputs: Any, **given: Any) -> str:
            if operator == kind:
                given = {key: value for key, value in {**given, **attributes}.items() if value is not None}
            return add(self, operator, name, inputs, **given)

        return attribute(Emitter, "add", wrong)

    return plant


def other_operator(kind: str, other: str) -> Plant:
    """An operator of another kind is written."""

    def plant() -> AbstractContextManager[None]:
        add = Emitter.add

        def wrong(self: Emitter, operator: str, name: str, inputs: Any, **given: Any) -> str:
            return add(self, other if operator == kind else operator, name, inputs, **given)

        return attribute(Emitter, "add", wrong)

    return plant


def fields(kind: str, **changed: Any) -> Plant:
    """The layer is written with other fields than the spec's."""

    def call(emit: Emission, layer: Any, b: LayerEmitter, x: Value) -> Value:
        values = {key: getattr(layer, key) for key in layer.model_fields_set}
        return emit(LAYER_TYPES[kind].model_validate({**values, **changed}), b, x)

    return port(kind, call)


def weight(kind: str, local: str, change: Callable[[Any], Any], name: str = "") -> Plant:
    """A layer's parameter is written changed."""

    def call(emit: Emission, layer: Any, b: LayerEmitter, x: Value) -> Value:
        canonical = b.node.parameters[local]
        right = b.graph.weights
        b.graph.weights = {**right, canonical: np.ascontiguousarray(change(right[canonical]))}
        try:
            return emit(layer, b, x)
        finally:
            b.graph.weights = right

    return port(kind, call, name)


def rows(name: str, row: str, layer: Fields, words: str, plant: Plant, part: str = "") -> Fault:
    """A fault in a model of rows."""
    return row_fault(name, row, "onnx", layer, words, plant, part)


def images(name: str, row: str, layer: Fields, words: str, plant: Plant, part: str = "") -> Fault:
    """A fault in a model of images."""
    return image_fault(name, row, "onnx", layer, words, plant, part)


def _padded(layer: Any, padding: Any) -> Any:
    values = {key: getattr(layer, key) for key in layer.model_fields_set}
    return type(layer).model_validate({**values, "padding": padding})


def _whitened(b: LayerEmitter, x: str, axes: list[int]) -> str:
    centred = b.op("Sub", x, b.reduced("ReduceMean", x, axes, keep=True))
    spread = b.op("Add", b.reduced("ReduceMean", b.op("Mul", centred, centred), axes, keep=True), b.number(1e-5))
    return b.op("Div", centred, b.op("Sqrt", spread))


SQUARE: Fields = {"type": "conv2d", "name": "conv", "filters": 4, "kernel_size": 3}
ENLARGED: Fields = {"type": "upsample2d", "name": "up"}

FAULTS = [
    images("ONNX: Keras' epsilon", "batch norm eps", NORM, "epsilon=0.001", fields("batch_norm", epsilon=1e-3)),
    images(
        "ONNX: variance for its root",
        "batch norm running variance",
        NORM,
        "",
        weight("batch_norm", "running_variance", np.sqrt),
    ),
    images(
        "ONNX: running mean's sign turned",
        "batch norm running variance",
        NORM,
        "",
        weight("batch_norm", "running_mean", lambda mean: -mean),
    ),
    rows(
        "ONNX: layer norm, epsilon 1e-12",
        "layer, group norm eps",
        LAYER,
        "epsilon=",
        fields("layer_norm", epsilon=1e-12),
    ),
    images(
        "ONNX: layer norm over all axes",
        "layer, group norm eps",
        LAYER,
        "",
        port(
            "layer_norm",
            lambda emit, layer, b, x: b.value(
                b.op("Add", b.op("Mul", _whitened(b, b.last(x), [1, 2, 3]), b.parameter("scale")), b.parameter("bias"))
            ),
        ),
    ),
    images(
        "ONNX: group norm, epsilon 1e-3",
        "layer, group norm eps",
        GROUP,
        "epsilon=0.001",
        fields("group_norm", epsilon=1e-3),
    ),
    rows("ONNX: RMS norm, epsilon 1e-5", "RMS norm eps", RMS, "epsilon=1e-05", fields("rms_norm", epsilon=1e-5)),
    images(
        "ONNX: padding counted in the mean",
        "average pool over padding",
        MEAN,
        "count_include_pad",
        other_attributes("AveragePool", count_include_pad=1),
    ),
    images(
        "ONNX: padding at the start",
        "same padding",
        {**SQUARE, "kernel_size": 2, "padding": "same"},
        "at the start",
        port("conv2d", lambda emit, layer, b, x: emit(_padded(layer, [[1, 0], [1, 0]]), b, x), "conv"),
    ),
    images(
        "ONNX: zeros around a maximum",
        "max pool padding",
        LARGEST,
        "zeros",
        port(
            "max_pool2d",
            lambda emit, layer, b, x: emit(
                _padded(layer, 0),
                b,
                Value((9, 8, 4), {"channels_first": b.op("Pad", b.first(x), b.integers([0, 0, 1, 1, 0, 0, 1, 1]))}),
            ),
        ),
    ),
    images(
        "ONNX: mean for maximum",
        "max pool",
        {**LARGEST, "padding": 0},
        "mean",
        other_operator("MaxPool", "AveragePool"),
    ),
    images(
        "ONNX: maximum for a global mean",
        "global average pool",
        {"type": "global_average_pool", "name": "pool", "keep_axes": True},
        "global_max_pool",
        other_operator("ReduceMean", "ReduceMax"),
    ),
    images(
        "ONNX: kernel flipped",
        "dense / conv weight",
        SQUARE,
        "flips",
        weight("conv2d", "kernel", lambda k: k[::-1, ::-1], "conv"),
    ),
    images(
        "ONNX: kernel's in for its out",
        "dense / conv weight",
        SQUARE,
        "transposed",
        weight("conv2d", "kernel", lambda k: k.swapaxes(2, 3), "conv"),
    ),
    images(
        "ONNX: kernel's height for its width",
        "dense / conv weight",
        SQUARE,
        "height and width",
        weight("conv2d", "kernel", lambda k: k.swapaxes(0, 1), "conv"),
    ),
    images(
        "ONNX: kernel reshaped, not transposed",
        "dense / conv weight",
        SQUARE,
        "another order",
        weight("conv2d", "kernel", lambda k: k.reshape(4, 4, 3, 3).transpose(2, 3, 1, 0), "conv"),
    ),
    images(
        "ONNX: multiplier before channel",
        "dense / conv weight",
        {"type": "depthwise_conv2d", "name": "deep", "kernel_size": 3, "multiplier": 2},
        "multiplier in the other order",
        weight("depthwise_conv2d", "kernel", lambda k: k.swapaxes(2, 3).reshape(k.shape)),
    ),
    images(
        "ONNX: transposed convolution cut at the start",
        "same padding",
        {"type": "conv_transpose2d", "name": "up", "filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"},
        "where the spec cuts",
        other_attributes("ConvTranspose", pads=[1, 1, 0, 0]),
    ),
    rows(
        "ONNX: Gemm with transB",
        "dense / conv weight",
        {"type": "dense", "name": "square", "units": 6},
        "transposed",
        weight("dense", "kernel", lambda k: k.T, "square"),
    ),
    rows(
        "ONNX: bias left out",
        "dense / conv weight",
        {"type": "dense", "name": "square", "units": 6},
        "use_bias=false",
        weight("dense", "bias", lambda bias: 0 * bias, "square"),
    ),
    images(
        "ONNX: flattened channels first",
        "flatten",
        {"type": "relu", "name": "act"},
        "channels first",
        port("flatten", lambda emit, layer, b, x: b.value(b.op("Flatten", b.first(x), axis=1))),
        "flat",
    ),
    rows(
        "ONNX: tanh GELU",
        "GELU",
        {"type": "gelu", "name": "act"},
        "approximate=tanh",
        other_attributes("Gelu", approximate="tanh"),
    ),
    rows(
        "ONNX: default slope",
        "leaky ReLU slope",
        {"type": "leaky_relu", "name": "act", "slope": 0.2},
        "slope=0.01",
        other_attributes("LeakyRelu", alpha=None),
    ),
    rows(
        "ONNX: default hard sigmoid",
        "hard sigmoid",
        {"type": "hard_sigmoid", "name": "act"},
        "0.2 x + 0.5",
        other_attributes("HardSigmoid", alpha=None),
    ),
    rows(
        "ONNX: default ELU",
        "activations",
        {"type": "elu", "name": "act", "alpha": 0.5},
        "alpha=1",
        other_attributes("Elu", alpha=None),
    ),
    images(
        "ONNX: slopes along the width",
        "PReLU",
        {"type": "prelu", "name": "act"},
        "",
        weight("prelu", "slope", lambda s: s[::-1]),
    ),
    images(
        "ONNX: softmax over the height",
        "softmax",
        {"type": "softmax", "name": "act"},
        "axis=",
        other_attributes("Softmax", axis=2),
    ),
    images(
        "ONNX: corners aligned",
        "bilinear resize",
        {**ENLARGED, "interpolation": "bilinear"},
        "align_corners",
        other_attributes("Resize", coordinate_transformation_mode="align_corners"),
    ),
    images(
        "ONNX: bilinear, asymmetric",
        "bilinear resize",
        {**ENLARGED, "interpolation": "bilinear"},
        "",
        other_attributes("Resize", coordinate_transformation_mode="asymmetric"),
    ),
    images(
        "ONNX: nearest, rounded up", "nearest resize", ENLARGED, "", other_attributes("Resize", nearest_mode="ceil")
    ),
    images(
        "ONNX: edge for mirror",
        "padding mode",
        {"type": "padding", "name": "pad", "amounts": [2, 1], "mode": "reflect"},
        "mode=edge",
        other_attributes("Pad", mode="edge"),
    ),
    rows(
        "ONNX: dropout scales in inference",
        "dropout",
        {"type": "dropout", "name": "drop", "rate": 0.3},
        "multiplies by 1 - rate in inference",
        port("dropout", lambda emit, layer, b, x: b.value(b.op("Mul", b.last(x), b.number(1 - layer.rate)))),
    ),
    Fault(
        "ONNX: joined along the height",
        "concatenate",
        "onnx",
        [
            {"type": "conv2d", "name": "left", "filters": 4, "kernel_size": 3, "inputs": ["x"]},
            {"type": "conv2d", "name": "right", "filters": 4, "kernel_size": 3, "inputs": ["x"]},
            {"type": "concatenate", "name": "join", "inputs": ["left", "right"]},
            {"type": "global_average_pool", "name": "pool"},
            {"type": "dense", "name": "head", "units": 3},
        ],
        (9, 8, 4),
        "join",
        "",
        other_attributes("Concat", axis=2),
    ),
    Fault(
        "ONNX: a row too far",
        "embedding index",
        "onnx",
        [
            {"type": "embedding", "name": "words", "vocabulary": 9, "width": 4},
            {"type": "flatten", "name": "flat"},
            {"type": "dense", "name": "head", "units": 3},
        ],
        (5,),
        "words",
        "row after",
        weight("embedding", "table", lambda table: np.roll(table, -1, 0)),
        dtype="integer",
    ),
    rows(
        "ONNX: weights in float16",
        "float32 accumulation",
        {"type": "dense", "name": "middle", "units": 6},
        "half precision",
        weight("dense", "kernel", lambda kernel: kernel.astype(np.float16).astype(np.float32), "middle"),
    ),
]
