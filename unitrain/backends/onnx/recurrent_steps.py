"""Recurrent layers written out, one step after the other."""

from __future__ import annotations

import numpy as np

from unitrain.backends.onnx.emitter import LayerEmitter, Value
from unitrain.spec.layers.recurrent import Gru, Lstm, RecurrentLayer, SimpleRnn


def run_steps(
    layer: RecurrentLayer, b: LayerEmitter, x: Value, prefix: str, reverse: bool, mask: str | None, state: list[str]
) -> list[str]:
    """Return the sequence ``[batch, length, units]``, or those arrays ``[batch, units]`` of the state that are wanted.

    Parameters
    ----------
    prefix, reverse
        Which parameters, and whether they read from the end.
    mask
        Booleans ``[batch, length]``, or None.
    state
        The arrays of the initial state, or none of them.
    """
    length = x.shape[0]
    given = b.op("MatMul", b.last(x), b.parameter(f"{prefix}kernel"))
    for bias in b.optional(f"{prefix}bias"):
        given = b.op("Add", given, bias)
    state = state or [b.floats(np.zeros((1, layer.units)))] * layer.states
    hidden = {}
    for t in range(length)[:: -1 if reverse else 1]:
        after = _step(layer, b, prefix, _at(b, given, t), state)
        if mask is not None:
            kept = b.op("Gather", mask, b.integers([t]), axis=1)
            after = [b.op("Where", kept, new, old) for new, old in zip(after, state, strict=True)]
        state, hidden[t] = after, after[0]
    if layer.returns != "sequence":
        return state[: layer.parts]
    sequence = b.op("Concat", *(hidden[t] for t in range(length)), axis=1)
    sequence = b.reshaped(sequence, [length, layer.units])
    if mask is not None:
        sequence = b.op("Where", b.op("Unsqueeze", mask, b.integers([2])), sequence, b.number(0.0))
    return [sequence]


def _step(layer: RecurrentLayer, b: LayerEmitter, prefix: str, given: str, state: list[str]) -> list[str]:
    product = b.op("MatMul", state[0], b.parameter(f"{prefix}recurrent"))

    def block(tensor: str, number: int) -> str:
        ends = [number * layer.units, (number + 1) * layer.units]
        return b.op("Slice", tensor, b.integers(ends[:1]), b.integers(ends[1:]), b.integers([1]))

    if isinstance(layer, Gru):
        return [_gru(b, prefix, [block(given, k) for k in range(3)], [block(product, k) for k in range(3)], state[0])]
    total = b.op("Add", given, product)
    if isinstance(layer, Lstm):
        i, f, g, o = (block(total, k) for k in range(4))
        kept = b.op("Mul", b.op("Sigmoid", f), state[1])
        cell = b.op("Add", kept, b.op("Mul", b.op("Sigmoid", i), b.op("Tanh", g)))
        return [b.op("Mul", b.op("Sigmoid", o), b.op("Tanh", cell)), cell]
    assert isinstance(layer, SimpleRnn)
    return [b.op(layer.nonlinearity.capitalize(), total)]


def _gru(b: LayerEmitter, prefix: str, given: list[str], product: list[str], h: str) -> str:
    z, r = (b.op("Sigmoid", b.op("Add", given[k], product[k])) for k in range(2))
    inner = product[2]
    for bias in b.optional(f"{prefix}recurrent_bias"):
        inner = b.op("Add", inner, bias)
    n = b.op("Tanh", b.op("Add", given[2], b.op("Mul", r, inner)))
    return b.op("Add", b.op("Mul", z, h), b.op("Mul", b.op("Sub", b.number(1.0), z), n))


def _at(b: LayerEmitter, sequence: str, t: int) -> str:
    """Return a step, ``[batch, channel]``."""
    return b.op("Gather", sequence, b.graph.constant(np.array(t, np.int64)), axis=1)
