"""From gradients to new weights: penalty, clipping, the optimizer's rule, decay, moving average, in this order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.spec.optimizers import Optimizer
from unitrain.train.optimizers import Rule, make_rule

AVERAGE = "ema"


class Update:
    """`rule.Updater` of a recipe's optimizer.

    Parameters
    ----------
    spec
        The optimizer.
    decays
        For each trainable parameter, whether weight decay and penalty act on it by default.
    sparse
        Parameters whose zeros stay zeros. A weight that is not zero becomes exactly zero by training next to never.
    """

    def __init__(self, spec: Optimizer, decays: Mapping[str, bool], sparse: Collection[str] = ()) -> None:
        self.spec = spec
        self.sparse = frozenset(sparse)
        self.rule: Rule = make_rule(spec)
        self.decays = {name: spec.decay_all or decay for name, decay in decays.items()}
        self.slots: tuple[str, ...] = (*self.rule.slots, *((AVERAGE,) if spec.ema is not None else ()))

    @property
    def fusible(self) -> bool:
        """Whether a framework's own kernel may take the place of `update`: not of another class's."""
        return type(self) is Update and not self.sparse

    def coefficients(self, learning_rates: npt.NDArray[np.float64], first_update: int) -> npt.NDArray[np.float64]:
        """Return a row of scalars for each update: lr * weight_decay, then the rule's own.

        Parameters
        ----------
        learning_rates
            Float64 ``[updates]``.
        first_update
            Number of the first of them, from 0.
        """
        decay = (learning_rates * self.spec.weight_decay)[:, None]
        return np.concatenate([decay, self.rule.coefficients(learning_rates, first_update)], axis=1)

    def alike(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Group parameters by whether they decay, if any do, and keep their zeros.

        A limit of the norm joins all, and there is no group.
        """
        # Who writes another update in a subclass may join numbers.
        if self.spec.clip_norm is not None or type(self) is not Update:
            return ()
        any_decay = bool(self.spec.weight_decay or self.spec.l2)
        groups: dict[tuple[bool, bool], list[str]] = {}
        for name in names:
            groups.setdefault((any_decay and self.decays[name], name in self.sparse), []).append(name)
        return tuple(tuple(groups[key]) for key in sorted(groups, reverse=True))

    def update(
        self,
        xp: ArrayNamespace,
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        slots: Mapping[str, Mapping[str, Tensor]],
        coefficients: Sequence[Any],
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """Return new parameters and slots; nothing is changed in place."""
        decay, *scalars = coefficients
        gradients = self.limited(xp, parameters, gradients)
        new_parameters: dict[str, Tensor] = {}
        new_slots: dict[str, dict[str, Tensor]] = {slot: {} for slot in self.slots}
        for name, parameter in parameters.items():
            state = [slots[slot][name] for slot in self.rule.slots]
            step, state = self.rule.step(xp, gradients[name], state, scalars)
            if self.spec.weight_decay and self.decays[name]:
                step = step - decay * parameter
            # 1 where the weight is not zero, else 0.
            kept = xp.abs(xp.sign(parameter)) if name in self.sparse else None
            new_parameters[name] = parameter + step if kept is None else (parameter + step) * kept
            for slot, value in zip(self.rule.slots, state, strict=True):
                new_slots[slot][name] = value
            if self.spec.ema is not None:
                average = slots[AVERAGE][name]
                average = self.spec.ema * average + (1.0 - self.spec.ema) * new_parameters[name]
                new_slots[AVERAGE][name] = average if kept is None else average * kept
        return new_parameters, new_slots

    def limited(
        self, xp: ArrayNamespace, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Return the gradients that the optimizer's rule sees: with the penalty, and clipped."""
        return self._clipped(xp, self._penalised(parameters, gradients))

    def _penalised(self, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Add the gradient 2 * l2 * w of the penalty l2 * sum(w^2)."""
        if not self.spec.l2:
            return gradients
        return {
            name: gradient + 2.0 * self.spec.l2 * parameters[name] if self.decays[name] else gradient
            for name, gradient in gradients.items()
        }

    def _clipped(self, xp: ArrayNamespace, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Limit each element, then the norm of all gradients together."""
        limit = self.spec.clip_value
        if limit is not None:
            gradients = {name: xp.clip(gradient, -limit, limit) for name, gradient in gradients.items()}
        if self.spec.clip_norm is None or not gradients:
            return gradients
        squares = [xp.sum(xp.square(gradient)) for gradient in gradients.values()]
        norm = xp.sqrt(sum(squares[1:], squares[0]))
        factor = xp.minimum(self.spec.clip_norm / (norm + 1e-6), 1.0)
        return {name: gradient * factor for name, gradient in gradients.items()}
