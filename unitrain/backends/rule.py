"""What a training step computes beside the graph: losses, metrics, and how weights are updated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.spec.optimizers import Optimizer


class LossFunction(Protocol):
    """A loss for one output: mean = numerator / denominator, and 0 when the denominator is 0."""

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return numerator and denominator, two scalars, of the weighted mean over the batch.

        A denominator that does not depend on the batch's values is a plain number.
        """
        ...

    def gradient(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return the hand-derived gradient of the **numerator** by ``prediction``, in its shape."""
        ...


class MetricFunction(Protocol):
    """A metric that is a ratio of two sums and can so be accumulated on the device, step by step."""

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return numerator and denominator for this batch, as a loss does."""
        ...


class Updater(Protocol):
    """Turns gradients into new weights: clipping, decay, the optimizer's rule and the moving average."""

    slots: tuple[str, ...]
    """Names of the state kept beside each trainable parameter, each zeros of its shape at the start;
    ``ema`` alone starts as a copy of the parameter."""

    @property
    def spec(self) -> Optimizer:
        """What is computed."""
        ...

    @property
    def decays(self) -> Mapping[str, bool]:
        """For each trainable parameter, whether weight decay and penalty act on it."""
        ...

    @property
    def fusible(self) -> bool:
        """Whether `update` is exactly what ``spec`` says, so that a framework's own kernel may take its place."""
        ...

    def alike(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Group parameters that `update` treats alike, each number of them by itself alone.

        Of such a group a backend may hand any part to `update`, flat and under the name of any of the group. None
        are grouped where numbers depend on one another: then `update` takes all parameters together.
        """
        ...

    def limited(
        self, xp: ArrayNamespace, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Return the gradients that the optimizer's rule sees: with the penalty, and clipped."""
        ...

    def update(
        self,
        xp: ArrayNamespace,
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        slots: Mapping[str, Mapping[str, Tensor]],
        coefficients: Sequence[Tensor | float],
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """Return new parameters and slots (``slots[slot][parameter]``); nothing is changed in place.

        ``coefficients`` are the step's scalars, one row of `Plan.coefficients`, in the dtype of the weights.
        """
        ...


@dataclass(frozen=True)
class TrainingRule:
    """What one training step computes, beside the graph.

    Parameters
    ----------
    losses
        A loss and its factor for each graph output that is trained; the total is the factor-weighted sum.
    metrics
        ``(label, output, metric)``: accumulated on the device at every step.
    updater
        Gradients to new weights.
    """

    losses: Mapping[str, tuple[float, LossFunction]]
    metrics: Sequence[tuple[str, str, MetricFunction]]
    updater: Updater
