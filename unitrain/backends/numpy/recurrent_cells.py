"""One step of each recurrent layer, and of its way back.

A cell goes through the steps once. Forward it writes what it computes over ``given`` ``[step, batch, gates * units]``,
which comes as ``x W + b`` of all steps. Before it goes back all that does not depend on the gradient is computed at
once, over all steps: the factors by which the gradients by the state are multiplied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from unitrain.backends.numpy.registry import Array, Parameters
from unitrain.spec.layers.recurrent import Gru, Lstm, RecurrentLayer, SimpleRnn

# Arrays ``[batch, units]``, the hidden state first.
State = tuple[Array, ...]


Kept = Callable[[Array], object]


class Cell(Protocol):
    """Steps of one direction; ``recurrent`` is R."""

    def step(self, t: int, state: State) -> State:
        """Return the state after step ``t``."""
        ...

    def turn(self) -> None:
        """Compute the factors, once all steps are done."""
        ...

    def back(self, t: int, d_state: State) -> State:
        """Return the gradients by the state before step ``t``, and keep those that `gradients` gives."""
        ...

    def gradients(self) -> tuple[Array, Array]:
        """Return the gradients by ``x W + b`` and by ``h R`` of all steps, shaped like ``given``."""
        ...


def _sigmoid(x: Array) -> None:
    """1 / (1 + exp(-x)) in place; where the exponential overflows it is 0."""
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += 1
    np.reciprocal(x, out=x)


def make_cell(
    layer: RecurrentLayer, parameters: Parameters, prefix: str, given: Array, hidden: Array, kept: Kept
) -> Cell:
    """Make the cell of a layer's direction; ``hidden`` ``[step, batch, units]`` are the states before the steps."""
    recurrent = parameters[f"{prefix}recurrent"]
    if isinstance(layer, Lstm):
        return _LstmCell(recurrent, given, kept)
    if isinstance(layer, Gru):
        return _GruCell(recurrent, given, hidden, parameters.get(f"{prefix}recurrent_bias"), kept)
    assert isinstance(layer, SimpleRnn)
    return _SimpleCell(recurrent, given, layer.nonlinearity == "relu", kept)


class _SimpleCell:
    """``h' = f(a)``, ``a = given + h R``: da = dh' f'(a), by which dh = da R^T."""

    def __init__(self, recurrent: Array, given: Array, relu: bool, kept: Kept) -> None:
        self._kept = kept
        self._recurrent, self._after, self._relu = recurrent, given, relu

    def step(self, t: int, state: State) -> State:
        after = self._after[t]
        after += state[0] @ self._recurrent
        if self._relu:
            np.maximum(after, 0, out=after)
        else:
            np.tanh(after, out=after)
            self._kept(after)
        return (after,)

    def turn(self) -> None:
        self._d = (self._after > 0).astype(self._after.dtype) if self._relu else 1 - self._after**2
        self._turned = np.ascontiguousarray(self._recurrent.T)

    def back(self, t: int, d_state: State) -> State:
        self._d[t] *= d_state[0]
        return (self._d[t] @ self._turned,)

    def gradients(self) -> tuple[Array, Array]:
        return self._d, self._d


class _LstmCell:
    """``c' = f c + i g``, ``h' = o tanh(c')`` with i, f, o = sigmoid and g = tanh of the blocks of ``given + h R``.

    With dc += dh' o (1 - tanh(c')^2) the gradients by the blocks are dc g i (1 - i), dc c f (1 - f), dc i (1 - g^2) and
    dh' tanh(c') o (1 - o); and that by c is dc f.
    """

    def __init__(self, recurrent: Array, given: Array, kept: Kept) -> None:
        self._kept = kept
        steps, batch, _ = given.shape
        self._recurrent, self._gates = recurrent, given
        self._units = len(recurrent)
        self._before, self._bent = np.empty((2, steps, batch, self._units), given.dtype)

    def step(self, t: int, state: State) -> State:
        h, c = state
        units, gates = self._units, self._gates[t]
        gates += h @ self._recurrent
        _sigmoid(gates[:, : 2 * units])
        np.tanh(gates[:, 2 * units : 3 * units], out=gates[:, 2 * units : 3 * units])
        _sigmoid(gates[:, 3 * units :])
        self._kept(gates)
        i, f, g, o = (gates[:, k * units : (k + 1) * units] for k in range(4))
        self._before[t] = c
        cell = f * c + i * g
        np.tanh(cell, out=self._bent[t])
        self._kept(self._bent[t])
        return o * self._bent[t], cell

    def turn(self) -> None:
        units = self._units
        i, f, g, o = (self._gates[..., k * units : (k + 1) * units] for k in range(4))
        self._d = np.empty_like(self._gates)
        self._d[..., :units] = g * i * (1 - i)
        self._d[..., units : 2 * units] = self._before * f * (1 - f)
        self._d[..., 2 * units : 3 * units] = i * (1 - g * g)
        self._d[..., 3 * units :] = self._bent * o * (1 - o)
        self._to_cell = o * (1 - self._bent**2)
        self._turned = np.ascontiguousarray(self._recurrent.T)

    def back(self, t: int, d_state: State) -> State:
        units, d = self._units, self._d[t]
        dh, dc = d_state
        dc = dc + dh * self._to_cell[t]
        d.reshape(-1, 4, units)[:, :3] *= dc[:, None]
        d[:, 3 * units :] *= dh
        return d @ self._turned, dc * self._gates[t, :, units : 2 * units]

    def gradients(self) -> tuple[Array, Array]:
        return self._d, self._d


class _GruCell:
    """``h' = z h + (1 - z) n``, ``n = tanh(given_n + r p)``, ``p = h R_n + b``; z, r = sigmoid of ``given + h R``.

    The gradients by the blocks z, r, n of ``given`` are dh' (h - n) z (1 - z), dn p r (1 - r) and
    dn = dh' (1 - z) (1 - n^2); by the blocks of ``h R`` they are the same, but dn r for the last; and dh has dh' z.
    """

    def __init__(self, recurrent: Array, given: Array, hidden: Array, bias: Array | None, kept: Kept) -> None:
        self._kept = kept
        self._recurrent, self._gates, self._hidden, self._bias = recurrent, given, hidden, bias
        self._units = len(recurrent)
        self._inner = np.empty(hidden.shape, given.dtype)

    def step(self, t: int, state: State) -> State:
        (h,) = state
        units, gates, inner = self._units, self._gates[t], self._inner[t]
        product = h @ self._recurrent
        inner[...] = product[:, 2 * units :]
        if self._bias is not None:
            inner += self._bias
        gates[:, : 2 * units] += product[:, : 2 * units]
        _sigmoid(gates[:, : 2 * units])
        z, r, n = (gates[:, k * units : (k + 1) * units] for k in range(3))
        n += r * inner
        np.tanh(n, out=n)
        self._kept(gates)
        return (z * h + (1 - z) * n,)

    def turn(self) -> None:
        units = self._units
        z, r, n = (self._gates[..., k * units : (k + 1) * units] for k in range(3))
        self._d = np.empty_like(self._gates)
        self._d[..., :units] = (self._hidden - n) * z * (1 - z)
        self._d[..., 2 * units :] = (1 - z) * (1 - n * n)
        self._d[..., units : 2 * units] = self._d[..., 2 * units :] * self._inner * r * (1 - r)
        self._d_product = np.empty_like(self._gates)
        self._turned = np.ascontiguousarray(self._recurrent.T)

    def back(self, t: int, d_state: State) -> State:
        units, d, d_product = self._units, self._d[t], self._d_product[t]
        (dh,) = d_state
        d.reshape(-1, 3, units)[...] *= dh[:, None]
        d_product[...] = d
        d_product[:, 2 * units :] *= self._gates[t, :, units : 2 * units]
        return (d_product @ self._turned + dh * self._gates[t, :, :units],)

    def gradients(self) -> tuple[Array, Array]:
        return self._d, self._d_product
