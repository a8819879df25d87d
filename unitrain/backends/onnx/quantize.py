"""Rounding to the levels of integers: ``QuantizeLinear`` and ``DequantizeLinear``."""

from __future__ import annotations

import numpy as np

from unitrain.backends.onnx.emitter import Array, LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.quantize import FakeQuantize
from unitrain.weights.quantize import settled_grid

# onnxruntime 1.32 has no QuantizeLinear of opset 28.
_LAST_OPSET = 27


@implements(FakeQuantize)
def fake_quantize(layer: FakeQuantize, b: LayerEmitter, x: Value) -> Value:
    """The pair of operators, which have 8 bits; other levels are clipped to before.

    onnxruntime has the operators in float32 alone: in 16 bits numbers are widened before and rounded behind. In
    float64, and in opsets for which it lacks them, by the formula.
    """
    parameters = {name: b.weight(name) for name in b.node.parameters}
    scale, zero = settled_grid(layer, parameters, np.float64 if b.double else np.float32)
    least, most = ((np.float64(level) - zero) * scale for level in layer.levels)
    tensor, layout = x.forms[x.layout], x.layout

    def placed(array: Array) -> Array:
        """Bring one number, or one for each channel, into the value's layout."""
        channels_first = layout == "channels_first" and array.size > 1
        return array.reshape(-1, *(1,) * (x.rank - 2)) if channels_first else array

    half = b.dtype == np.float16
    if half:
        tensor = b.op("Cast", tensor, to=1)
    if b.double or b.opset > _LAST_OPSET:
        wide = np.float64 if b.double else np.float32
        size = b.graph.constant(placed(scale).astype(wide))
        bounds = [b.graph.constant(placed(bound - zero).astype(wide)) for bound in layer.levels]
        held = b.op("Min", b.op("Max", b.op("Round", b.op("Div", tensor, size)), bounds[0]), bounds[1])
        y = b.op("Mul", held, size)
        return Value(x.shape, {layout: b.op("Cast", y, to=10) if half else y})
    if layer.symmetric or layer.bits < 8:
        for kind, bound in (("Max", least), ("Min", most)):
            tensor = b.op(kind, tensor, b.graph.constant(placed(bound.astype(np.float32))))
    # Unsigned always: onnxruntime's optimizer joins pairs one behind another, and breaks a model of both kinds.
    middle = 128 if layer.symmetric else 0
    single = scale.size == 1
    pair = [
        b.graph.constant(array.reshape(()) if single else array)
        for array in (scale.astype(np.float32), (zero + middle).astype(np.uint8))
    ]
    attributes = {} if single else {"axis": 1 if layout == "channels_first" else x.rank - 1}
    y = b.op("DequantizeLinear", b.op("QuantizeLinear", tensor, *pair, **attributes), *pair, **attributes)
    return Value(x.shape, {layout: b.op("Cast", y, to=10) if half else y})
