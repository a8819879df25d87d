"""Losses. All take logits or plain numbers; the mean over a batch is sum(weight * loss) / sum(weight)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from unitrain.spec.base import Spec
from unitrain.spec.choice import Choice
from unitrain.spec.named import BY_NAME

Smoothing = Annotated[float, Field(ge=0.0, lt=1.0)]


class CrossEntropy(Spec):
    """Softmax cross-entropy from logits ``[batch, ..., class]`` and class numbers ``[batch, ...]``.

    Parameters
    ----------
    class_weights
        A weight for each class: a sample counts with the weight of its class.
    label_smoothing
        s: the target becomes (1 - s) * one-hot + s / classes (Szegedy et al. 2016).
    ignore_index
        Class number of elements that count nothing.
    """

    type: Literal["cross_entropy"] = "cross_entropy"
    class_weights: tuple[NonNegativeFloat, ...] | None = None
    label_smoothing: Smoothing = 0.0
    ignore_index: int | None = None


class BinaryCrossEntropy(Spec):
    """Sigmoid cross-entropy from logits and targets 0 or 1 of the same size.

    Parameters
    ----------
    class_weights
        Weights of the targets 0 and 1.
    label_smoothing
        s: the target becomes y * (1 - s) + s / 2.
    """

    type: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    class_weights: tuple[NonNegativeFloat, NonNegativeFloat] | None = None
    label_smoothing: Smoothing = 0.0


class MeanSquaredError(Spec):
    """Mean of (prediction - target)^2."""

    type: Literal["mse"] = "mse"


class MeanAbsoluteError(Spec):
    """Mean of abs(prediction - target); the derivative at 0 is 0."""

    type: Literal["mae"] = "mae"


class Huber(Spec):
    """e^2 / 2 where abs(e) <= delta, else delta * (abs(e) - delta / 2) (Huber 1964)."""

    type: Literal["huber"] = "huber"
    delta: PositiveFloat = 1.0


class KlDivergence(Spec):
    """KL(target || softmax(logits)): sum over the last axis, mean over the others; targets are probabilities."""

    type: Literal["kl_divergence"] = "kl_divergence"


Loss = Annotated[
    Annotated[
        CrossEntropy | BinaryCrossEntropy | MeanSquaredError | MeanAbsoluteError | Huber | KlDivergence,
        Choice(),
    ],
    BY_NAME,
]
