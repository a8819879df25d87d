"""Where a token stands in its sequence, added to what it is."""

from __future__ import annotations

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.backends.onnx.registry import implements
from unitrain.backends.tables import sinusoidal_waves
from unitrain.spec.layers.position import PositionEmbedding, SinusoidalPosition


@implements(PositionEmbedding)
def position_embedding(layer: PositionEmbedding, b: LayerEmitter, x: Value) -> Value:
    """``Add`` of the rows that are used."""
    rows = b.parameter("table")
    if len(b.weight("table")) > x.shape[0]:
        rows = b.op("Slice", rows, b.integers([0]), b.integers([x.shape[0]]), b.integers([0]))
    return b.value(b.op("Add", b.last(x), rows))


@implements(SinusoidalPosition)
def sinusoidal_position(layer: SinusoidalPosition, b: LayerEmitter, x: Value) -> Value:
    """``Add`` of fixed numbers."""
    return b.value(b.op("Add", b.last(x), b.floats(sinusoidal_waves(x.shape, layer.base, layer.layout))))
