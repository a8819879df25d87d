"""The known differences of optimizers, tried on the probe whose gradients are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unitrain.backends.contract import ArrayNamespace, Plan, Tensor
from unitrain.spec.optimizers import Optimizer
from unitrain.train.optimizers import Rows, Rule
from unitrain.train.update import AVERAGE, Update
from unitrain.verify.diagnosis.fields import alternatives, changed_field, show
from unitrain.verify.experiments.steps import AT_START, Steps
from unitrain.verify.findings import TensorName
from unitrain.verify.runner import Array, Runner
from unitrain.verify.verdict import judge

Found = Mapping[TensorName, Array]


@dataclass(frozen=True)
class Meaning:
    """Another meaning of the optimizer: in words, and as the probe changed to it."""

    text: str
    steps: Steps


def explain_optimizer(steps: Steps, optimizer: Optimizer, found: Found, reference: Runner, narrow: Runner) -> str:
    """Return the difference that explains what a backend's optimizer did, or nothing.

    Parameters
    ----------
    steps
        The probe, begun.
    optimizer
        What the spec says.
    found
        What the backend computed on it.
    reference, narrow
        NumPy in float64 and float32.
    """
    if text := _start(steps, found, reference):
        return text
    for number, meaning in enumerate(_meanings(steps, optimizer)):
        wide = _recomputed(meaning, reference, number)
        single = _recomputed(meaning, narrow, number)
        known = [name for name in found if name in wide and not name.tensor.startswith("loss")]
        if known and all(judge(found[name], wide[name], single[name], growth=name.growth).passed for name in known):
            return meaning.text
    return ""


def _recomputed(meaning: Meaning, runner: Runner, number: int) -> dict[TensorName, Array]:
    return replace(meaning.steps, key=f"{meaning.steps.key} meaning {number}").tensors(runner)


def _start(steps: Steps, found: Found, reference: Runner) -> str:
    """Explain optimizer state that is other from the start."""
    right = steps.tensors(reference)
    for name, array in found.items():
        if not name.tensor.endswith(AT_START) or np.array_equal(array, right[name]):
            continue
        slot = name.tensor.partition(" of ")[0]
        if np.ptp(array) == 0 and np.ptp(right[name]) == 0:
            return f"begins with {slot} at {array.flat[0]:g}, the spec says {right[name].flat[0]:g}"
        return f"begins with another {slot} than the spec's"
    return ""


def _meanings(steps: Steps, optimizer: Optimizer) -> Iterator[Meaning]:
    update = steps.rule.updater
    assert isinstance(update, Update)
    decays = update.decays

    def with_updater(text: str, updater: Update) -> Meaning:
        plans = tuple(_planned(plan, updater, number, optimizer.lr) for number, plan in enumerate(steps.plans))
        return Meaning(text, replace(steps, rule=replace(steps.rule, updater=updater), plans=plans))

    for text, changed in alternatives(optimizer):
        if _same_slots(changed, update, decays):
            yield with_updater(text, Update(changed, _own_decays(decays)))  # type: ignore[arg-type]  # of the same class
    for text, spec in _moved_decay(optimizer):
        yield with_updater(text, Update(spec, _own_decays(decays)))
    for text, make in _RULES.get(optimizer.type, ()):
        yield with_updater(text, _with_rule(Update(optimizer, decays), make(update.rule)))
    for text, updater in _steps_around(optimizer, decays):
        yield with_updater(text, updater)
    for factor, text in _plan_factors(steps):
        scaled = tuple(replace(plan, scale=plan.scale * factor) for plan in steps.plans)
        yield Meaning(text, replace(steps, plans=scaled))
    for shift, text in ((-1, "uses the coefficients (learning rate, bias correction) of the update before"),
                        (1, "uses the coefficients (learning rate, bias correction) of the update after")):  # fmt: skip
        rows = [plan.coefficients for plan in steps.plans]
        moved = [rows[min(max(number + shift, 0), len(rows) - 1)] for number in range(len(rows))]
        plans = tuple(replace(plan, coefficients=row) for plan, row in zip(steps.plans, moved, strict=True))
        yield Meaning(text, replace(steps, plans=plans))


def _own_decays(decays: Mapping[str, bool]) -> dict[str, bool]:
    # `Update.decays` has `decay_all` in it already; the probe's kernels decay and its biases do not.
    return {name: name.startswith("kernel") for name in decays}


def _same_slots(changed: Any, update: Update, decays: Mapping[str, bool]) -> bool:
    """Tell whether a changed optimizer keeps the same state, without which it cannot be tried from a given one."""
    return Update(changed, decays).slots == update.slots


def _planned(plan: Plan, updater: Update, number: int, base: float) -> Plan:
    """Return a plan with the coefficients that another updater has for the same learning rate."""
    from unitrain.verify.experiments.probes import RATES

    row = updater.coefficients(np.array([base * RATES[number]]), number)
    return replace(plan, coefficients=np.repeat(row, len(plan), axis=0))


def _plan_factors(steps: Steps) -> Iterator[tuple[float, str]]:
    count = len(steps.plans[0])
    if count > 1:
        yield float(count), f"adds up the gradients of {count} batches, where the spec takes their mean"
        yield 1.0 / count, f"divides the gradients of {count} batches twice"
    yield -1.0, "goes along the gradient, not against it"


def _moved_decay(optimizer: Optimizer) -> Iterator[tuple[str, Optimizer]]:
    """Decay that is coupled and should not be, or the other way round, or of another size."""
    decay, penalty = optimizer.weight_decay, optimizer.l2
    if decay:
        for factor in (0.5, 1.0):
            yield from _changed(
                optimizer,
                f"couples weight_decay={show(decay)} to the gradient (L2), where the spec decays the weights",
                weight_decay=0.0,
                l2=factor * decay,
            )
    if penalty:
        yield from _changed(
            optimizer,
            f"matches with l2={show(penalty / 2)}: weight_decay lambda taken for l2; lambda is 2 * l2",
            l2=penalty / 2,
        )
        for factor in (1.0, 2.0):
            yield from _changed(
                optimizer,
                "decays the weights themselves, where the spec adds the penalty's gradient (l2)",
                l2=0.0,
                weight_decay=factor * penalty,
            )


def _changed(optimizer: Optimizer, text: str, **fields: float) -> Iterator[tuple[str, Optimizer]]:
    yield (
        text,
        type(optimizer).model_validate({**{n: getattr(optimizer, n) for n in type(optimizer).model_fields}, **fields}),
    )


def _with_rule(update: Update, rule: Rule) -> Update:
    update.rule = rule
    return update


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
_RULES: dict[str, tuple[tuple[str, _Make], ...]] = {
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


def _steps_around(optimizer: Optimizer, decays: Mapping[str, bool]) -> Iterator[tuple[str, Update]]:
    """Other ways to clip, decay and average."""
    if optimizer.clip_norm is not None:
        yield "clips the norm of each parameter by itself (clipnorm), not of all together", _ClipEach(optimizer, decays)
        yield "clips with min(c / norm, 1), without the 1e-6", _ClipBare(optimizer, decays)
        yield "does not clip", Update(_without(optimizer, clip_norm=None), _own_decays(decays))
        yield (
            "clips each element to clip_norm",
            Update(_without(optimizer, clip_norm=None, clip_value=optimizer.clip_norm), _own_decays(decays)),
        )
        yield "always scales to clip_norm, small gradients too", _ClipAlways(optimizer, decays)
    if optimizer.l2 and (optimizer.clip_norm is not None or optimizer.clip_value is not None):
        yield "adds the penalty after clipping, not before", _PenaltyLate(optimizer, decays)
    if optimizer.weight_decay:
        yield "decays by weight_decay * w, without the learning rate", _DecayWithoutRate(optimizer, decays)
        yield (
            "decays biases and norms, and not the kernels",
            Update(optimizer, {name: not value for name, value in _own_decays(decays).items()}),
        )
    if optimizer.ema is not None:
        yield "averages the weights before the update, not after", _AverageEarly(optimizer, decays)
        yield (
            "averages with the decay on the new weights: (1 - ema) * average + ema * w",
            _AverageSwapped(optimizer, decays),
        )


def _without(optimizer: Optimizer, **fields: Any) -> Optimizer:
    changed: Any = optimizer
    for name, value in fields.items():
        changed = changed_field(changed, name, value) or changed
    return changed  # type: ignore[no-any-return]  # still an optimizer of the same class


class _ClipEach(Update):
    def _clipped(self, xp: ArrayNamespace, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        limit = self.spec.clip_norm or 1.0
        return {
            name: g * xp.minimum(limit / (xp.sqrt(xp.sum(xp.square(g))) + 1e-6), 1.0) for name, g in gradients.items()
        }


class _ClipBare(Update):
    def _clipped(self, xp: ArrayNamespace, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        squares = [xp.sum(xp.square(gradient)) for gradient in gradients.values()]
        factor = xp.minimum((self.spec.clip_norm or 1.0) / xp.sqrt(sum(squares[1:], squares[0])), 1.0)
        return {name: gradient * factor for name, gradient in gradients.items()}


class _ClipAlways(Update):
    def _clipped(self, xp: ArrayNamespace, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        squares = [xp.sum(xp.square(gradient)) for gradient in gradients.values()]
        factor = (self.spec.clip_norm or 1.0) / (xp.sqrt(sum(squares[1:], squares[0])) + 1e-6)
        return {name: gradient * factor for name, gradient in gradients.items()}


class _PenaltyLate(Update):
    def update(self, xp: Any, parameters: Any, gradients: Any, slots: Any, coefficients: Any) -> Any:
        clipped = super()._clipped(xp, gradients)
        return super().update(xp, parameters, super()._penalised(parameters, clipped), slots, coefficients)

    def _penalised(self, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return gradients

    def _clipped(self, xp: ArrayNamespace, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return gradients


class _DecayWithoutRate(Update):
    def coefficients(self, learning_rates: Any, first_update: int) -> Any:
        rows = super().coefficients(learning_rates, first_update)
        rows[:, 0] = self.spec.weight_decay
        return rows


class _AverageEarly(Update):
    def update(self, xp: Any, parameters: Any, gradients: Any, slots: Any, coefficients: Any) -> Any:
        new, state = super().update(xp, parameters, gradients, slots, coefficients)
        kept = self.spec.ema or 0.0
        state[AVERAGE] = {name: kept * slots[AVERAGE][name] + (1.0 - kept) * parameters[name] for name in parameters}
        return new, state


class _AverageSwapped(Update):
    def update(self, xp: Any, parameters: Any, gradients: Any, slots: Any, coefficients: Any) -> Any:
        new, state = super().update(xp, parameters, gradients, slots, coefficients)
        kept = 1.0 - (self.spec.ema or 0.0)
        state[AVERAGE] = {name: kept * slots[AVERAGE][name] + (1.0 - kept) * new[name] for name in parameters}
        return new, state
