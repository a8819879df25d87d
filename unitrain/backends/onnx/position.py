"""Where a token stands in its sequence, added to what it is."""

from __future__ import annotations

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.backends.tables import sinusoidal_waves
from unitrain.spec.layers.position import PositionEmbedding, SinusoidalPosition


@implements(PositionEmbedding)
def position_embedding(layer: PositionEmbedding, b: LayerEmitter, x: Value) -> Value:
    """``Add`` of the rows that are used."""
    table = b.weight("table")
    return b.value(b.op("Add", b.last(x), b.parameter("table", table[: x.shape[0]])))


@implements(SinusoidalPosition)
def sinusoidal_position(layer: SinusoidalPosition, b: LayerEmitter, x: Value) -> Value:
    """``Add`` of fixed numbers."""
    return b.value(b.op("Add", b.last(x), b.floats(sinusoidal_waves(x.shape, layer.base, layer.layout))))
