"""Recurrent layers: a case whose gates stand in another order, with steps before samples and two biases for one."""

from __future__ import annotations

import numpy as np
from onnx_cases.node_case import Array, NodeCase, NotApplicable, Outputs, Translator

# Blocks of ONNX's rows in the order of ours: i f g o of its i o f c; z r n are its z r h.
ORDER = {"lstm": (0, 2, 3, 1), "gru": (0, 1, 2), "simple_rnn": (0,)}
DIRECTIONS = {"forward": "forward", "reverse": "backward", "bidirectional": "both"}


def recurrent(kind: str) -> Translator:
    """Return the translator of an operator: one layer gives its sequence, another its last state."""

    def translate(case: NodeCase) -> Outputs:
        by_batch = bool(case.attributes.get("layout", 0))
        x, w, r = case.numbers(0), case.numbers(1), case.numbers(2)
        x = x if by_batch else x.swapaxes(0, 1)
        _check(case, kind, x.shape[1])
        hidden = r.shape[-1]
        fields = {
            "type": kind,
            "units": hidden,
            "direction": DIRECTIONS[case.attributes.get("direction", "forward")],
            "use_bias": case.given(3) is not None,
        }
        weights = _weights(kind, w, r, case.given(3), hidden)
        inputs = [x]
        if case.given(4) is not None:
            fields["mask"] = f"x{len(inputs)}"
            inputs.append((np.arange(x.shape[1]) < case.need(4)[:, None]).astype(np.int32))
        first = [case.numbers(place) for place in (5, 6) if case.given(place) is not None]
        if first:
            fields["initial_state"] = [f"x{len(inputs) + place}" for place in range(len(first))]
            inputs += [_joined(state, by_batch) for state in first]
        results: Outputs = []
        for wanted in map(np.asarray, case.outputs):
            # Of two states of one shape, the second is that of an LSTM's cell.
            cell = wanted.ndim == 3 and any(np.ndim(output) == 3 for output in case.outputs[: len(results)])
            returns = "state" if cell else "sequence" if wanted.ndim == 4 else "last"
            y = case.apply({**fields, "returns": returns}, *inputs, **weights).output
            results.append(_reshaped(y[:, y.shape[1] // 2 :] if cell else y, wanted, by_batch))
        return results

    return translate


def _check(case: NodeCase, kind: str, steps: int) -> None:
    if case.attributes.keys() & {"activations", "clip", "input_forget", "activation_alpha", "activation_beta"}:
        raise NotApplicable("other activations, limits or gates")
    if case.given(7) is not None:
        raise NotApplicable("peepholes")
    if kind == "gru" and not case.attributes.get("linear_before_reset", 0) and (steps > 1 or case.given(3) is not None):
        raise NotApplicable("the reset gate before the product: ours is behind it")


def _weights(kind: str, w: Array, r: Array, b: Array | None, hidden: int) -> dict[str, Array]:
    """Return canonical weights of all directions."""

    def columns(rows: Array) -> Array:
        blocks = rows.reshape(len(ORDER[kind]), hidden, -1)[list(ORDER[kind])]
        return np.ascontiguousarray(blocks.reshape(-1, blocks.shape[-1]).T)

    weights = {}
    for place in range(len(w)):
        prefix = "backward_" if place else ""
        weights[f"{prefix}kernel"], weights[f"{prefix}recurrent"] = columns(w[place]), columns(r[place])
        if b is None:
            continue
        given, recurrent_bias = (columns(half)[0] for half in np.split(b[place], 2))
        if kind == "gru":
            weights[f"{prefix}recurrent_bias"] = recurrent_bias[-hidden:]
            recurrent_bias = np.concatenate([recurrent_bias[:-hidden], np.zeros(hidden, b.dtype)])
        weights[f"{prefix}bias"] = given + recurrent_bias
    return weights


def _joined(state: Array, by_batch: bool) -> Array:
    """Put the directions' states ``[direction, batch, hidden]`` side by side."""
    state = state if by_batch else state.swapaxes(0, 1)
    return state.reshape(len(state), -1)


def _reshaped(y: Array, wanted: Array, by_batch: bool) -> Array:
    """Part the directions of ``[batch, ..., direction * units]``, and put axes into ONNX's order."""
    axis = wanted.ndim - 2 if by_batch else wanted.ndim - 3
    y = y.reshape(*y.shape[:-1], wanted.shape[axis], wanted.shape[-1])
    if by_batch:
        return y
    return y.transpose(1, 2, 0, 3) if wanted.ndim == 4 else y.swapaxes(0, 1)
