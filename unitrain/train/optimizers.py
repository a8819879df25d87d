"""The rules of the optimizers, written once for all frameworks, sorted by increasing complexity.

A rule works element by element. Numbers that depend on the update alone (learning rate, bias corrections) are its
*coefficients*: computed on the host in float64, a row for each update, and passed in. t counts updates from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

import numpy as np
import numpy.typing as npt

from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.spec import optimizers as specs

Rows = npt.NDArray[np.float64]


class Rule(Protocol):
    """One optimizer's arithmetic for one parameter."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the state kept beside each parameter."""
        ...

    def coefficients(self, rates: Rows, first_update: int) -> Rows:
        """Return ``[updates, coefficients]`` for learning rates ``[updates]``; ``first_update`` counts from 0."""
        ...

    def step(
        self,
        xp: ArrayNamespace,
        gradient: Tensor,
        slots: Sequence[Tensor],
        coefficients: Sequence[Any],
    ) -> tuple[Tensor, list[Tensor]]:
        """Return what is *added* to the parameter, and the new slots, in the order of ``slots``."""
        ...


def make_rule(spec: specs.Optimizer) -> Rule:
    """Return the rule of an optimizer specification."""
    match spec:
        case specs.Sgd():
            return SgdRule(spec, ("momentum",) if spec.momentum else ())
        case specs.Lion():
            return LionRule(spec)
        case specs.Adagrad():
            return AdagradRule(spec)
        case specs.RmsProp():
            centred, momentum = ("mean",) if spec.centred else (), ("momentum",) if spec.momentum else ()
            return RmsPropRule(spec, ("variance", *centred, *momentum))
        case specs.Adam():
            return AdamRule(spec)
        case specs.Nadam():
            return NadamRule(spec)
        case _:
            assert_never(spec)


class _ByRate:
    """A rule that depends on the step by its learning rate alone."""

    def coefficients(self, rates: Rows, first_update: int) -> Rows:
        """lr."""
        return np.asarray(rates, dtype=np.float64)[:, None]


@dataclass(frozen=True)
class SgdRule(_ByRate):
    """b = mu * b + g; dw = -lr * b, with Nesterov -lr * (g + mu * b)."""

    spec: specs.Sgd
    slots: tuple[str, ...]

    def step(
        self, xp: ArrayNamespace, gradient: Tensor, slots: Sequence[Tensor], coefficients: Sequence[Any]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the update and the new velocity."""
        (rate,) = coefficients
        if not self.slots:
            return -rate * gradient, []
        velocity = self.spec.momentum * slots[0] + gradient
        direction = gradient + self.spec.momentum * velocity if self.spec.nesterov else velocity
        return -rate * direction, [velocity]


@dataclass(frozen=True)
class LionRule(_ByRate):
    """dw = -lr * sign(b1 * m + (1 - b1) * g); m = b2 * m + (1 - b2) * g."""

    spec: specs.Lion
    slots: tuple[str, ...] = ("momentum",)

    def step(
        self, xp: ArrayNamespace, gradient: Tensor, slots: Sequence[Tensor], coefficients: Sequence[Any]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the update and the new momentum."""
        (rate,) = coefficients
        b1, b2 = self.spec.beta1, self.spec.beta2
        direction = xp.sign(b1 * slots[0] + (1.0 - b1) * gradient)
        return -rate * direction, [b2 * slots[0] + (1.0 - b2) * gradient]


@dataclass(frozen=True)
class AdagradRule(_ByRate):
    """a += g^2; dw = -lr * g / (sqrt(a) + eps)."""

    spec: specs.Adagrad
    slots: tuple[str, ...] = ("sum_of_squares",)

    def step(
        self, xp: ArrayNamespace, gradient: Tensor, slots: Sequence[Tensor], coefficients: Sequence[Any]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the update and the new sum."""
        (rate,) = coefficients
        squares = slots[0] + gradient * gradient
        return -rate * gradient / (xp.sqrt(squares) + self.spec.epsilon), [squares]


@dataclass(frozen=True)
class RmsPropRule(_ByRate):
    """v = d * v + (1 - d) * g^2; q = g / (sqrt(v) + eps); dw = -lr * q, or through a momentum."""

    spec: specs.RmsProp
    slots: tuple[str, ...]

    def step(
        self, xp: ArrayNamespace, gradient: Tensor, slots: Sequence[Tensor], coefficients: Sequence[Any]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the update and the new averages."""
        (rate,) = coefficients
        decay = self.spec.decay
        state = dict(zip(self.slots, slots, strict=True))
        state["variance"] = decay * state["variance"] + (1.0 - decay) * gradient * gradient
        spread = state["variance"]
        if self.spec.centred:
            state["mean"] = decay * state["mean"] + (1.0 - decay) * gradient
            # Rounding can leave a variance of nothing slightly below 0.
            spread = xp.maximum(spread - state["mean"] * state["mean"], 0.0)
        direction = gradient / (xp.sqrt(spread) + self.spec.epsilon)
        if self.spec.momentum:
            direction = state["momentum"] = self.spec.momentum * state["momentum"] + direction
        return -rate * direction, [state[name] for name in self.slots]


@dataclass(frozen=True)
class AdamRule:
    """m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g^2; dw = -lr * m_hat / (sqrt(v_hat) + eps).

    m_hat = m / (1 - b1^t), v_hat = v / (1 - b2^t).
    """

    spec: specs.Adam
    slots: tuple[str, ...] = ("mean", "variance")

    def coefficients(self, rates: Rows, first_update: int) -> Rows:
        """lr / (1 - b1^t) and 1 / sqrt(1 - b2^t)."""
        t = _updates(rates, first_update)
        return np.stack([rates / (1.0 - self.spec.beta1**t), 1.0 / np.sqrt(1.0 - self.spec.beta2**t)], axis=1)

    def step(
        self, xp: ArrayNamespace, gradient: Tensor, slots: Sequence[Tensor], coefficients: Sequence[Any]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the update and the new averages."""
        rate, root = coefficients
        mean = self.spec.beta1 * slots[0] + (1.0 - self.spec.beta1) * gradient
        variance = self.spec.beta2 * slots[1] + (1.0 - self.spec.beta2) * gradient * gradient
        return -rate * mean / (xp.sqrt(variance) * root + self.spec.epsilon), [mean, variance]


@dataclass(frozen=True)
class NadamRule:
    """Adam's averages; dw = -lr * ((1 - mu_t) g / (1 - P_t) + mu_(t+1) m / (1 - P_(t+1))) / (sqrt(v_hat) + eps).

    mu_t = b1 * (1 - 0.96^(0.004 t) / 2), P_t = mu_1 * ... * mu_t.
    """

    spec: specs.Nadam
    slots: tuple[str, ...] = ("mean", "variance")

    def coefficients(self, rates: Rows, first_update: int) -> Rows:
        """The factors of g and m, and 1 / sqrt(1 - b2^t)."""
        t = _updates(rates, first_update)
        return np.stack(
            [
                rates * (1.0 - self._momenta(t)) / (1.0 - self._products(t)),
                rates * self._momenta(t + 1.0) / (1.0 - self._products(t + 1.0)),
                1.0 / np.sqrt(1.0 - self.spec.beta2**t),
            ],
            axis=1,
        )

    def _momenta(self, t: Rows) -> Rows:
        """mu_t."""
        return self.spec.beta1 * (1.0 - 0.5 * 0.96 ** (0.004 * t))

    def _products(self, t: Rows) -> Rows:
        """P_t; from t = 100 on P_100, for both are below 2^-53, and 1 - P is 1, whatever beta1 is."""
        first = np.cumprod(self._momenta(np.arange(1.0, 101.0)), dtype=np.float64)
        return first[np.minimum(t, 100.0).astype(np.int64) - 1]

    def step(
        self, xp: ArrayNamespace, gradient: Tensor, slots: Sequence[Tensor], coefficients: Sequence[Any]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the update and the new averages."""
        of_gradient, of_mean, root = coefficients
        mean = self.spec.beta1 * slots[0] + (1.0 - self.spec.beta1) * gradient
        variance = self.spec.beta2 * slots[1] + (1.0 - self.spec.beta2) * gradient * gradient
        direction = of_gradient * gradient + of_mean * mean
        return -direction / (xp.sqrt(variance) * root + self.spec.epsilon), [mean, variance]


def _updates(rates: Rows, first_update: int) -> Rows:
    return first_update + np.arange(1, len(rates) + 1, dtype=np.float64)
