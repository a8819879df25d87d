"""The mathematics of the losses, written once for all frameworks, with hand-derived gradients.

Each loss is a weighted mean: `terms` gives numerator and denominator, `gradient` the derivative of the numerator by
the prediction. ``weight`` is one number a sample, ``[batch]``, or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.backends.rule import LossFunction
from unitrain.spec.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    KlDivergence,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
)


def make_loss(spec: Loss) -> LossFunction:
    """Return the mathematics of a loss specification."""
    match spec:
        case CrossEntropy():
            return SoftmaxCrossEntropy(spec)
        case BinaryCrossEntropy():
            return SigmoidCrossEntropy(spec)
        case MeanSquaredError() | MeanAbsoluteError() | Huber():
            return Distance(spec)
        case KlDivergence():
            return Divergence()
        case _:
            assert_never(spec)


def sigmoid(xp: ArrayNamespace, x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)), without overflow."""
    # exp(x) / (1 + exp(x)) below 0: a small probability keeps all its digits.
    return xp.exp(xp.minimum(x, 0.0)) / (1.0 + xp.exp(-xp.abs(x)))


def element_weights(xp: ArrayNamespace, weight: Tensor | None, like: Tensor) -> Tensor | None:
    """Spread sample weights ``[batch]`` over the elements of ``like`` ``[batch, ...]``; None stays None."""
    if weight is None:
        return None
    return xp.ones_like(like) * xp.reshape(xp.cast(weight, like), (-1, *(1,) * (len(like.shape) - 1)))


def weighted_sums(xp: ArrayNamespace, weights: Tensor | None, losses: Tensor) -> tuple[Tensor, Tensor | float]:
    """Return sum(w * l) and sum(w); without weights each is 1."""
    if weights is None:
        return xp.sum(losses), xp.size(losses)
    return xp.sum(weights * losses), xp.sum(weights)


def scaled(weights: Tensor | None, x: Tensor) -> Tensor:
    """Return w * x; without weights x."""
    return x if weights is None else weights * x


def match_shape(xp: ArrayNamespace, target: Tensor, shape: Sequence[int]) -> Tensor:
    """Bring targets into ``shape``: ``[batch]`` into ``[batch, 1]``.

    Raises
    ------
    ValueError
        They differ by more than axes of size 1; without this NumPy's rules would pair each with each.
    """
    if tuple(target.shape) == tuple(shape):
        return target
    # Where TensorFlow traces, a batch's size may be None, not known yet.
    same_batch = None in (target.shape[0], shape[0]) or target.shape[0] == shape[0]
    if not same_batch or [n for n in target.shape[1:] if n != 1] != [n for n in shape[1:] if n != 1]:
        raise ValueError(f"targets of shape {list(target.shape)} do not fit the wanted shape {list(shape)}")
    return xp.reshape(target, (-1, *shape[1:]))


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """l = -sum_k q_k log softmax(x)_k with q the smoothed one-hot target; dl/dx = softmax(x) - q."""

    spec: CrossEntropy

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return sum(w * l) and sum(w), w = sample weight * class weight, 0 where ignored."""
        classes, weights = self.counted(xp, prediction, target, weight)
        logs = xp.log_softmax(prediction)
        losses = -xp.take_last(logs, classes)
        s = self.spec.label_smoothing
        if s != 0.0:
            losses = (1.0 - s) * losses - (s / int(prediction.shape[-1])) * xp.sum(logs, axis=-1)
        return weighted_sums(xp, weights, losses)

    def gradient(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return w * (softmax(x) - q)."""
        classes, weights = self.counted(xp, prediction, target, weight)
        count, s = int(prediction.shape[-1]), self.spec.label_smoothing
        wanted = xp.one_hot(classes, count, prediction)
        if s != 0.0:
            wanted = wanted * (1.0 - s) + s / count
        return scaled(None if weights is None else weights[..., None], xp.softmax(prediction) - wanted)

    def counted(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the classes ``[batch, ...]``, 0 for those that are ignored, and their weights, if there are any."""
        classes = match_shape(xp, target, prediction.shape[:-1])
        weights = None if weight is None else element_weights(xp, weight, prediction[..., 0])
        if self.spec.ignore_index is not None:
            counted = classes != self.spec.ignore_index
            classes = xp.where(counted, classes, 0)
            weights = scaled(weights, xp.cast(counted, prediction))
        if self.spec.class_weights is not None:
            if len(self.spec.class_weights) != int(prediction.shape[-1]):
                raise ValueError(
                    f"{len(self.spec.class_weights)} class_weights do not fit {int(prediction.shape[-1])} classes"
                )
            factors = xp.asarray(np.array(self.spec.class_weights), prediction)
            weights = scaled(weights, xp.take(factors, classes))
        return classes, weights


@dataclass(frozen=True)
class SigmoidCrossEntropy:
    """l = max(x, 0) - x * y + log(1 + exp(-abs(x))); dl/dx = sigmoid(x) - y."""

    spec: BinaryCrossEntropy

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return sum(w * l) and sum(w)."""
        wanted, weights = self._wanted(xp, prediction, target, weight)
        losses = xp.maximum(prediction, 0.0) - prediction * wanted + xp.log1p(xp.exp(-xp.abs(prediction)))
        return weighted_sums(xp, weights, losses)

    def gradient(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return w * (sigmoid(x) - y)."""
        wanted, weights = self._wanted(xp, prediction, target, weight)
        return scaled(weights, sigmoid(xp, prediction) - wanted)

    def _wanted(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        y = xp.cast(match_shape(xp, target, prediction.shape), prediction)
        weights = element_weights(xp, weight, prediction)
        if self.spec.class_weights is not None:
            zero, one = self.spec.class_weights
            weights = scaled(weights, zero + (one - zero) * y)
        s = self.spec.label_smoothing
        return (y if s == 0.0 else y * (1.0 - s) + 0.5 * s), weights


@dataclass(frozen=True)
class Distance:
    """Squared, absolute or Huber distance of each element, averaged over all elements."""

    spec: MeanSquaredError | MeanAbsoluteError | Huber

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return sum(w * l) and sum(w)."""
        error = prediction - xp.cast(match_shape(xp, target, prediction.shape), prediction)
        weights = element_weights(xp, weight, prediction)
        match self.spec:
            case MeanSquaredError():
                losses = error * error
            case MeanAbsoluteError():
                losses = xp.abs(error)
            case Huber(delta=delta):
                inside = xp.minimum(xp.abs(error), delta)
                # Inside the second term is 0, outside the first is delta^2 / 2.
                losses = 0.5 * inside * inside + delta * (xp.abs(error) - inside)
        return weighted_sums(xp, weights, losses)

    def gradient(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return w times 2e, sign(e), or e limited to delta."""
        error = prediction - xp.cast(match_shape(xp, target, prediction.shape), prediction)
        weights = element_weights(xp, weight, prediction)
        match self.spec:
            case MeanSquaredError():
                return scaled(weights, 2.0 * error)
            case MeanAbsoluteError():
                return scaled(weights, xp.sign(error))
            case Huber(delta=delta):
                return scaled(weights, xp.clip(error, -delta, delta))


@dataclass(frozen=True)
class Divergence:
    """l = sum_k p_k (log p_k - log softmax(x)_k), 0 log 0 = 0; dl/dx = softmax(x) sum(p) - p."""

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return sum(w * l) and sum(w) over all axes but the last."""
        p = xp.cast(match_shape(xp, target, prediction.shape), prediction)
        entropy = p * xp.log(xp.where(p > 0.0, p, xp.ones_like(p)))
        losses = xp.sum(entropy - p * xp.log_softmax(prediction), axis=-1)
        weights = element_weights(xp, weight, losses)
        return weighted_sums(xp, weights, losses)

    def gradient(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return w * (softmax(x) sum(p) - p)."""
        p = xp.cast(match_shape(xp, target, prediction.shape), prediction)
        weights = element_weights(xp, weight, p[..., 0])
        softmax = xp.softmax(prediction)
        return scaled(None if weights is None else weights[..., None], softmax * xp.sum(p, axis=-1, keepdims=True) - p)
