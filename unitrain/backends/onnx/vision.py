"""Parts of vision models."""

from __future__ import annotations

import numpy as np

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import IMPLEMENTATIONS, implements
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.layers.vision import ClassToken, LayerScale, PatchEmbedding, SqueezeExcite


@implements(LayerScale)
def layer_scale(layer: LayerScale, b: LayerEmitter, x: Value) -> Value:
    """In the layout that the value is in."""
    scale = b.weight("scale")
    shaped = scale.reshape(-1, *(1,) * (x.rank - 2)) if x.layout == "channels_first" else scale
    return b.value(b.op("Mul", x.forms[x.layout], b.parameter("scale", shaped)), x.layout)


@implements(ClassToken)
def class_token(layer: ClassToken, b: LayerEmitter, x: Value) -> Value:
    """A place is made before the sequence, and the token put there."""
    length = x.shape[0] + 1
    padded = b.op("Pad", b.last(x), b.integers([0, 1, 0, 0, 0, 0]))
    first = b.graph.constant((np.arange(length) == 0).reshape(1, length, 1))
    return b.value(b.op("Where", first, b.parameter("token", b.weight("token").reshape(1, 1, -1)), padded))


@implements(PatchEmbedding)
def patch_embedding(layer: PatchEmbedding, b: LayerEmitter, x: Value) -> Value:
    """A convolution whose stride is its window; in float64, for which there is none, patches as rows of a matrix."""
    (down, across), (high, wide) = layer.grid(x.shape), layer.patch
    if not b.double:
        inputs = (b.first(x), b.parameter("kernel", b.weight("kernel").transpose(3, 2, 0, 1)), *b.optional("bias"))
        window = list(layer.patch)
        patches = b.reshaped(b.op("Conv", *inputs, kernel_shape=window, strides=window), [layer.width, down * across])
        return b.value(b.op("Transpose", patches, perm=[0, 2, 1]))
    kernel = b.weight("kernel").reshape(-1, layer.width)
    parts = b.reshaped(b.last(x), [down, high, across, wide, x.shape[-1]])
    rows = b.reshaped(b.op("Transpose", parts, perm=[0, 1, 3, 2, 4, 5]), [down * across, len(kernel)])
    y = b.op("MatMul", rows, b.parameter("kernel", kernel))
    for bias in b.optional("bias"):
        y = b.op("Add", y, bias)
    return b.value(y)


@implements(SqueezeExcite)
def squeeze_excite(layer: SqueezeExcite, b: LayerEmitter, x: Value) -> Value:
    """In the layout that the value is in."""
    tensor = x.forms[x.layout]
    mean = b.reduced("ReduceMean", tensor, [x.axis(axis, x.layout) for axis in range(1, x.rank - 1)], keep=False)
    hidden = _activated(b, layer.inner, _dense(b, mean, "reduce"), layer.reduced)
    gates = _activated(b, layer.gate, _dense(b, hidden, "expand"), x.shape[-1])
    ones = [1] * (x.rank - 2)
    shape = [x.shape[-1], *ones] if x.layout == "channels_first" else [*ones, x.shape[-1]]
    return b.value(b.op("Mul", tensor, b.reshaped(gates, shape)), x.layout)


def _dense(b: LayerEmitter, x: str, part: str) -> str:
    return b.op("Gemm", x, b.parameter(f"{part}_kernel"), b.parameter(f"{part}_bias"))


def _activated(b: LayerEmitter, name: str, x: str, size: int) -> str:
    layer = LAYER_TYPES[name].model_validate({})
    y: Value = IMPLEMENTATIONS[type(layer)](layer, b, Value((size,), {"channels_last": x}))
    return y.forms["channels_last"]
