"""Recurrent layers, with backpropagation through time (Werbos 1990).

The products with the inputs, and all gradients by weights, are products over the whole sequence; only what the
recurrence demands is done step by step, in `recurrent_cells`. Steps come first in memory, so that each lies together.
"""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.recurrent_cells import Kept, State, make_cell
from unitrain.backends.numpy.reduction import sum_to_channel
from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.recurrent import Gru, Lstm, RecurrentLayer, SimpleRnn


@implements(Lstm, Gru, SimpleRnn)
def recurrent(layer: RecurrentLayer, context: Context, parameters: Parameters, x: Array, *sides: Array) -> Result:
    """Each direction by itself, their channels side by side; see the cells for the formulas of a step."""
    named = layer.sides((x, *sides))
    mask = next((mask != 0 for mask in named.get("mask", ())), None)
    starts = named.get("initial_state", ())
    units, whole = layer.units, layer.returns == "sequence"
    runs = []
    for number, (prefix, reverse) in enumerate(layer.directions):
        part = slice(number * units, (number + 1) * units)
        state = tuple(start[:, part] for start in starts)
        state = state or (np.zeros((len(x), units), x.dtype),) * layer.states
        runs.append(_Run(layer, parameters, prefix, x, mask, state, reverse, context.kept))
    # Of a state the arrays come one after the other, in each the directions.
    results = [[run.sequence()] if whole else list(run.final[: layer.parts]) for run in runs]
    y = np.concatenate([result[part] for part in range(layer.parts) for result in results], axis=-1)

    def backward(dy: Array) -> Gradients:
        gradients: dict[str, Array] = {}
        dx: Array | None = None
        by_run = []
        for number, run in enumerate(runs):
            places = [part * layer.channels + number * units for part in range(layer.parts)]
            d_result = [dy[..., place : place + units] for place in places]
            by_run.append(run.backward(d_result, whole, gradients))
            if context.wanted[0]:
                dx = run.by_input() if dx is None else dx + run.by_input()
        d_starts = [np.concatenate([d_state[part] for d_state in by_run], axis=-1) for part in range(len(starts))]
        return (dx, *(None for _ in named.get("mask", ())), *d_starts), gradients

    return y, backward


class _Run:
    """One direction over ``x`` ``[batch, length, channel]``, from ``state`` to the ``final`` one."""

    def __init__(
        self,
        layer: RecurrentLayer,
        parameters: Parameters,
        prefix: str,
        x: Array,
        mask: Array | None,
        state: State,
        reverse: bool,
        kept: Kept,
    ) -> None:
        self._parameters, self._prefix, self._reverse = parameters, prefix, reverse
        self._x = np.ascontiguousarray(self._in_order(x))  # [step, batch, channel], in the order of reading
        self._mask = None if mask is None else self._in_order(mask)[..., None]
        steps, batch, _ = self._x.shape
        given = self._x.reshape(steps * batch, -1) @ parameters[f"{prefix}kernel"]
        if f"{prefix}bias" in parameters:
            given += parameters[f"{prefix}bias"]
        # The hidden state before the first step, and after each.
        self._hidden = np.empty((steps + 1, batch, layer.units), x.dtype)
        self._hidden[0] = state[0]
        self._cell = make_cell(layer, parameters, prefix, given.reshape(steps, batch, -1), self._hidden[:-1], kept)
        for t in range(steps):
            after = self._cell.step(t, state)
            if self._mask is not None:
                after = tuple(np.where(self._mask[t], new, old) for new, old in zip(after, state, strict=True))
            state = after
            self._hidden[t + 1] = state[0]
        self.final = state

    def sequence(self) -> Array:
        """Return the hidden states at their positions, zeros where the mask leaves a step out."""
        outputs = self._hidden[1:]
        return self._at_positions(outputs if self._mask is None else np.where(self._mask, outputs, 0))

    def backward(self, d_result: list[Array], whole: bool, gradients: dict[str, Array]) -> State:
        """Return the gradients by the first state, and add those by the parameters.

        ``d_result`` is the gradient by the sequence, if ``whole``, or those by the first arrays of the final state.
        """
        zeros = np.zeros(self._hidden.shape[1:], self._hidden.dtype)
        d_state: State = (zeros,) * len(self.final)
        if whole:
            d_steps = self._in_order(d_result[0])
        else:
            d_state = (*d_result, *d_state[len(d_result) :])
        self._cell.turn()
        for t in reversed(range(len(self._x))):
            if whole:
                d_step = d_steps[t] if self._mask is None else d_steps[t] * self._mask[t]
                d_state = (d_state[0] + d_step, *d_state[1:])
            if self._mask is None:
                d_state = self._cell.back(t, d_state)
                continue
            # What a step that is left out hands on reaches the state before it, and not the step.
            passed = tuple(np.where(self._mask[t], 0, part) for part in d_state)
            changed = self._cell.back(t, tuple(np.where(self._mask[t], part, 0) for part in d_state))
            d_state = tuple(new + old for new, old in zip(changed, passed, strict=True))
        self._add(gradients)
        return d_state

    def _add(self, gradients: dict[str, Array]) -> None:
        d_given, d_product = self._cell.gradients()
        units, columns = self._hidden.shape[-1], d_given.shape[-1]
        self._d_given = d_given.reshape(-1, columns)
        gradients[f"{self._prefix}kernel"] = self._x.reshape(len(self._d_given), -1).T @ self._d_given
        before = self._hidden[:-1].reshape(-1, units)
        gradients[f"{self._prefix}recurrent"] = before.T @ d_product.reshape(-1, columns)
        if f"{self._prefix}bias" in self._parameters:
            gradients[f"{self._prefix}bias"] = sum_to_channel(d_given)
        if f"{self._prefix}recurrent_bias" in self._parameters:
            gradients[f"{self._prefix}recurrent_bias"] = sum_to_channel(d_product[..., -units:])

    def by_input(self) -> Array:
        """Return the gradient by ``x``, after `backward`."""
        d_x = self._d_given @ self._parameters[f"{self._prefix}kernel"].T
        return self._at_positions(d_x.reshape(self._x.shape))

    def _in_order(self, x: Array) -> Array:
        """``[batch, position, ...]`` to ``[step, batch, ...]``, in the order of reading."""
        return x.swapaxes(0, 1)[:: -1 if self._reverse else 1]

    def _at_positions(self, x: Array) -> Array:
        """The way back from `_in_order`."""
        return x[:: -1 if self._reverse else 1].swapaxes(0, 1)
