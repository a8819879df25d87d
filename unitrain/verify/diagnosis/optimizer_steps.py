"""Other ways to penalise, clip, decay and average, around the rule of an optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.spec.optimizers import Optimizer
from unitrain.train.update import AVERAGE, Update
from unitrain.verify.diagnosis.fields import changed_field, show


def own_decays(decays: Mapping[str, bool]) -> dict[str, bool]:
    """Return which parameters of the probe decay by default; `Update.decays` has ``decay_all`` in it already."""
    return {name: name.startswith("kernel") for name in decays}


def moved_decay(optimizer: Optimizer) -> Iterator[tuple[str, Optimizer]]:
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


def other_steps(optimizer: Optimizer, decays: Mapping[str, bool]) -> Iterator[tuple[str, Update]]:
    """Other ways to clip, decay and average."""
    if optimizer.clip_norm is not None:
        yield "clips the norm of each parameter by itself (clipnorm), not of all together", _ClipEach(optimizer, decays)
        yield "clips with min(c / norm, 1), without the 1e-6", _ClipBare(optimizer, decays)
        yield "does not clip", Update(_without(optimizer, clip_norm=None), own_decays(decays))
        yield (
            "clips each element to clip_norm",
            Update(_without(optimizer, clip_norm=None, clip_value=optimizer.clip_norm), own_decays(decays)),
        )
        yield "always scales to clip_norm, small gradients too", _ClipAlways(optimizer, decays)
    if optimizer.l2 and (optimizer.clip_norm is not None or optimizer.clip_value is not None):
        yield "adds the penalty after clipping, not before", _PenaltyLate(optimizer, decays)
    if optimizer.weight_decay:
        yield "decays by weight_decay * w, without the learning rate", _DecayWithoutRate(optimizer, decays)
        yield (
            "decays biases and norms, and not the kernels",
            Update(optimizer, {name: not value for name, value in own_decays(decays).items()}),
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
