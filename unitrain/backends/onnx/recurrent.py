"""Recurrent layers: ONNX's operators, and in float64, which onnxruntime's lack, the formulas step by step."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from unitrain.backends.onnx.emitter import Array, LayerEmitter, Value
from unitrain.backends.onnx.recurrent_steps import run_steps
from unitrain.backends.onnx.registry import implements
from unitrain.spec.layers.recurrent import Gru, Lstm, RecurrentLayer, SimpleRnn


@implements(Lstm, Gru, SimpleRnn)
def recurrent(layer: RecurrentLayer, b: LayerEmitter, x: Value, *sides: Value) -> Value:
    """Each direction by itself, their channels side by side."""
    named = layer.sides((x, *sides))
    mask = next((b.op("Cast", b.last(mask), to=TensorProto.BOOL) for mask in named.get("mask", ())), None)
    results = []
    for number, (prefix, reverse) in enumerate(layer.directions):
        state = [_part(b, b.last(start), number * layer.units, layer.units) for start in named.get("initial_state", ())]
        if b.double:
            results.append(run_steps(layer, b, x, prefix, reverse, mask, state))
        else:
            results.append(_run(layer, b, x, prefix, reverse, mask, state))
    # Of a state the arrays come one after the other, in each the directions.
    parts = [result[part] for part in range(len(results[0])) for result in results]
    return b.value(b.op("Concat", *parts, axis=-1) if len(parts) > 1 else b.op("Identity", parts[0]))


def _part(b: LayerEmitter, tensor: str, start: int, size: int) -> str:
    return b.op("Slice", tensor, b.integers([start]), b.integers([start + size]), b.integers([1]))


def _run(
    layer: RecurrentLayer, b: LayerEmitter, x: Value, prefix: str, reverse: bool, mask: str | None, state: list[str]
) -> list[str]:
    """Return the sequence ``[batch, length, units]``, or those arrays ``[batch, units]`` of the state that are wanted.

    With a mask the steps that count are brought to the front, in the order of reading, and ``sequence_lens`` says how
    many there are. The operators compute in float32.
    """
    steps, lengths = b.last(x), ""
    if mask is not None:
        order = _order(b, mask, x.shape[0], reverse)
        steps = _rows(b, steps, order)
        lengths = b.reduced("ReduceSum", b.op("Cast", mask, to=TensorProto.INT32), [1], keep=False)
    initial = [b.op("Unsqueeze", _wide(b, part), b.integers([0])) for part in state]
    whole = layer.returns == "sequence"
    outputs = b.ops(
        "RNN" if isinstance(layer, SimpleRnn) else layer.type.upper(),
        1 if whole else 1 + layer.parts,
        b.op("Transpose", _wide(b, steps), perm=[1, 0, 2]),
        *(_wide(b, weight) for weight in _weights(layer, b, prefix)),
        *([lengths, *initial] if lengths or initial else []),
        hidden_size=layer.units,
        direction="reverse" if reverse and mask is None else "forward",
        **_options(layer),
    )
    if not whole:
        final = [_narrow(b, b.op("Squeeze", part, b.integers([0]))) for part in outputs[1:]]
        if mask is None:
            return final
        some = b.op("Greater", b.op("Unsqueeze", lengths, b.integers([1])), b.graph.constant(np.array(0, np.int32)))
        before = state or [b.number(0.0)] * layer.states
        return [b.op("Where", some, new, old) for new, old in zip(final, before, strict=False)]
    sequence = _narrow(b, b.op("Transpose", b.op("Squeeze", outputs[0], b.integers([1])), perm=[1, 0, 2]))
    if mask is None:
        return [sequence]
    spread = _rows(b, sequence, _smallest_first(b, order, x.shape[0]))
    return [b.op("Where", b.op("Unsqueeze", mask, b.integers([2])), spread, b.number(0.0))]


def _options(layer: RecurrentLayer) -> dict[str, object]:
    if isinstance(layer, SimpleRnn):
        return {"activations": [layer.nonlinearity.capitalize()]}
    return {"linear_before_reset": 1} if isinstance(layer, Gru) else {}


def _weights(layer: RecurrentLayer, b: LayerEmitter, prefix: str) -> list[str]:
    """Hold the kernels, ``[1, gates * units, in]``, and the biases, those for the input and those for the state."""

    def rows(array: Array) -> Array:
        # ONNX has the gates of an LSTM in the order i, o, f, g.
        if isinstance(layer, Lstm):
            i, f, g, o = np.split(array, 4, axis=-1)
            array = np.concatenate([i, o, f, g], axis=-1)
        return array.T[None]

    found = [b.parameter(f"{prefix}{name}", rows(b.weight(f"{prefix}{name}"))) for name in ("kernel", "recurrent")]
    if not layer.use_bias:
        return [*found, ""]
    first = rows(b.weight(f"{prefix}bias"))
    second = np.zeros_like(first)
    if isinstance(layer, Gru):
        second[:, -layer.units :] = b.weight(f"{prefix}recurrent_bias")
    return [*found, b.parameter(f"{prefix}bias", np.concatenate([first, second], axis=1))]


def _order(b: LayerEmitter, mask: str, length: int, reverse: bool) -> str:
    """Return which position is read first, second ... ``[batch, length]``: those that count, then the others."""
    places = np.arange(length, dtype=np.int32)[:: -1 if reverse else 1]
    ranks = b.op("Where", mask, b.graph.constant(places[None]), b.graph.constant(places[None] + length))
    return _smallest_first(b, ranks, length)


def _smallest_first(b: LayerEmitter, numbers: str, length: int) -> str:
    """Return the indices that sort each row; of a permutation that is its inverse."""
    return b.ops("TopK", 2, numbers, b.integers([length]), axis=1, largest=0, sorted=1)[1]


def _rows(b: LayerEmitter, x: str, order: str) -> str:
    """Take the rows of each sample in another order."""
    return b.op("GatherND", x, b.op("Unsqueeze", order, b.integers([2])), batch_dims=1)


def _wide(b: LayerEmitter, tensor: str) -> str:
    """Bring 16 bits to float32, in which alone onnxruntime has the operators."""
    return b.op("Cast", tensor, to=TensorProto.FLOAT) if tensor and b.dtype == np.float16 else tensor


def _narrow(b: LayerEmitter, tensor: str) -> str:
    return b.op("Cast", tensor, to=TensorProto.FLOAT16) if b.dtype == np.float16 else tensor
