"""Other formulas for the optimizers' rules, over the same state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.train.optimizers import Rows, Rule


@dataclass(frozen=True)
class OtherRule:
    """A rule with other formulas, over the state of the one it stands for."""

    rule: Any
    formula: Callable[..., tuple[Tensor, list[Tensor]]]
    rows: Callable[[Any, Rows, int], Rows] | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """The same as those of the rule it stands for."""
        slots: tuple[str, ...] = self.rule.slots
        return slots

    def coefficients(self, rates: Rows, first_update: int) -> Rows:
        """Those of the rule it stands for, unless it has its own."""
        rows: Rows = (self.rows or (lambda rule, rates, first: rule.coefficients(rates, first)))(
            self.rule, rates, first_update
        )
        return rows

    def step(
        self, xp: ArrayNamespace, gradient: Tensor, slots: Sequence[Tensor], coefficients: Sequence[Any]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the update and the new state."""
        return self.formula(self.rule, xp, gradient, list(slots), list(coefficients))


def _adam_averages(spec: Any, gradient: Tensor, slots: list[Tensor]) -> list[Tensor]:
    return [
        spec.beta1 * slots[0] + (1.0 - spec.beta1) * gradient,
        spec.beta2 * slots[1] + (1.0 - spec.beta2) * gradient * gradient,
    ]


def _epsilon_uncorrected(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    rate, root = scalars
    mean, variance = _adam_averages(rule.spec, gradient, slots)
    return -rate / root * mean / (xp.sqrt(variance) + rule.spec.epsilon), [mean, variance]


def _epsilon_uncorrected_keras(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    rate, root = scalars
    mean, variance = _adam_averages(rule.spec, gradient, slots)
    return -rate / root * mean / (xp.sqrt(variance) + 1e-7), [mean, variance]


def _epsilon_inside(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    rate, root = scalars
    mean, variance = _adam_averages(rule.spec, gradient, slots)
    return -rate * mean / xp.sqrt(variance * root * root + rule.spec.epsilon), [mean, variance]


def _adam_rates_only(rule: Any, rates: Rows, first: int) -> Rows:
    return np.stack([rates, np.ones_like(rates)], axis=1)


def _adam_plain(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    step: Any = rule.step(xp, gradient, slots, scalars)
    return step


def _adam_late(rule: Any, rates: Rows, first: int) -> Rows:
    """The bias corrections of the update before; of the first update its own."""
    late: Rows = rule.coefficients(rates, max(first - 1, 0))
    return late


def _rate_inside(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    (rate,) = scalars
    mu = rule.spec.momentum
    velocity = mu * slots[0] + rate * gradient
    return (-(mu * velocity + rate * gradient) if rule.spec.nesterov else -velocity), [velocity]


def _rate_inside_negative(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    (rate,) = scalars
    mu = rule.spec.momentum
    velocity = mu * slots[0] - rate * gradient
    return (mu * velocity - rate * gradient if rule.spec.nesterov else velocity), [velocity]


def _dampened(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    (rate,) = scalars
    mu = rule.spec.momentum
    velocity = mu * slots[0] + (1.0 - mu) * gradient
    return -rate * (gradient + mu * velocity if rule.spec.nesterov else velocity), [velocity]


def _forgotten(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    return -scalars[0] * gradient, slots


def _rmsprop_inside(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    (rate,) = scalars
    spec, state = rule.spec, dict(zip(rule.slots, slots, strict=True))
    state["variance"] = spec.decay * state["variance"] + (1.0 - spec.decay) * gradient * gradient
    spread = state["variance"]
    if spec.centred:
        state["mean"] = spec.decay * state["mean"] + (1.0 - spec.decay) * gradient
        spread = spread - state["mean"] * state["mean"]
    direction = gradient / xp.sqrt(spread + spec.epsilon)
    if spec.momentum:
        direction = state["momentum"] = spec.momentum * state["momentum"] + direction
    return -rate * direction, [state[name] for name in rule.slots]


def _adagrad_inside(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    squares = slots[0] + gradient * gradient
    return -scalars[0] * gradient / xp.sqrt(squares + rule.spec.epsilon), [squares]


def _adagrad_inside_keras(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    squares = slots[0] + gradient * gradient
    return -scalars[0] * gradient / xp.sqrt(squares + 1e-7), [squares]


def _nadam_rows(exponent: float) -> Callable[[Any, Rows, int], Rows]:
    def rows(rule: Any, rates: Rows, first: int) -> Rows:
        spec = rule.spec
        t = first + np.arange(1, len(rates) + 1, dtype=np.float64)

        def momenta(t: Rows) -> Rows:
            return spec.beta1 * (1.0 - 0.5 * 0.96 ** (exponent * t)) if exponent else np.full_like(t, spec.beta1)

        def products(t: Rows) -> Rows:
            return np.array([np.prod(momenta(np.arange(1.0, last + 1.0))) for last in t])

        return np.stack(
            [
                rates * (1.0 - momenta(t)) / (1.0 - products(t)),
                rates * momenta(t + 1.0) / (1.0 - products(t + 1.0)),
                1.0 / np.sqrt(1.0 - spec.beta2**t),
            ],
            axis=1,
        )

    return rows


def _lion_late(rule: Any, xp: Any, gradient: Tensor, slots: list[Tensor], scalars: list[Any]) -> Any:
    momentum = rule.spec.beta2 * slots[0] + (1.0 - rule.spec.beta2) * gradient
    return -scalars[0] * xp.sign(momentum), [momentum]


_Make = Callable[[Rule], Rule]


def _other(formula: Any, rows: Any = None) -> _Make:
    return lambda rule: OtherRule(rule, formula, rows)


_ADAM: tuple[tuple[str, _Make], ...] = (
    ("adds epsilon beside the uncorrected root sqrt(v) (Keras), not beside sqrt(v_hat)", _other(_epsilon_uncorrected)),
    ("adds epsilon 1e-7 beside the uncorrected root sqrt(v): Keras' Adam", _other(_epsilon_uncorrected_keras)),
    ("adds epsilon under the root: sqrt(v_hat + epsilon)", _other(_epsilon_inside)),
    ("leaves the bias correction out", _other(_adam_plain, _adam_rates_only)),
    ("corrects the bias for the update before: t counts from 0", _other(_adam_plain, _adam_late)),
)


RULES: dict[str, tuple[tuple[str, _Make], ...]] = {
    "adam": _ADAM,
    "adamw": _ADAM,
    "sgd": (
        ("has the learning rate inside the velocity (Keras): b = mu * b + lr * g", _other(_rate_inside)),
        ("has the learning rate inside the velocity (Keras): b = mu * b - lr * g", _other(_rate_inside_negative)),
        ("dampens the gradient: b = mu * b + (1 - mu) * g", _other(_dampened)),
        ("does not use the momentum", _other(_forgotten)),
    ),
    "rmsprop": (("adds epsilon under the root (Keras): sqrt(v + epsilon)", _other(_rmsprop_inside)),),
    "adagrad": (
        ("adds epsilon under the root (Keras): sqrt(a + epsilon)", _other(_adagrad_inside)),
        ("adds epsilon 1e-7 under the root: Keras' Adagrad", _other(_adagrad_inside_keras)),
    ),
    "nadam": (
        (
            "has the momentum schedule 0.96^t (Keras), where the spec has 0.96^(0.004 t)",
            _other(_adam_plain, _nadam_rows(1.0)),
        ),
        ("has no momentum schedule", _other(_adam_plain, _nadam_rows(0.0))),
    ),
    "lion": (("takes the sign of the new momentum, not of the interpolation", _other(_lion_late)),),
}
