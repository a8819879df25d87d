"""Metrics that are functions of a ratio of two sums: they stream on the device, step by step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.data.vocabulary import Vocabulary
from unitrain.spec import losses
from unitrain.train.losses import SoftmaxCrossEntropy, element_weights, match_shape, scaled, weighted_sums

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Units:
    """What targets stand for.

    Numbers were scaled before they became targets, for each column or for all: y = scale * target + shift.

    ``naive`` is the error of the seasonal naive forecast in the training span of a series, in the units of y.
    ``vocabulary`` is that of running text, whose tokens are predicted.
    ``of_series``: each sample has units of its own, those of the series it is of.
    """

    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    naive: tuple[float, ...] = ()
    vocabulary: Vocabulary | None = None
    of_series: bool = False


class Streaming:
    """Evaluates on the host with the very terms that stream on the device."""

    streams: ClassVar[bool] = True
    additive: ClassVar[bool] = True
    higher_is_better: ClassVar[bool] = False

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return numerator and denominator."""
        raise NotImplementedError

    def finish(self, ratio: float) -> float:
        """The ratio itself."""
        return ratio

    def evaluate(self, prediction: Floats, target: Array, weight: Floats | None) -> float:
        """Measure a whole data set in float64."""
        return self.of_sums(self.sums(prediction, target, weight))

    def sums(self, prediction: Floats, target: Array, weight: Floats | None) -> Floats:
        """Return numerator and denominator in float64."""
        numerator, denominator = self.terms(NumpyNamespace(), prediction, target, weight)
        return np.array([float(numerator), float(denominator)])

    def of_sums(self, sums: Floats) -> float:
        """Return the value of a ratio, NaN of nothing."""
        numerator, denominator = sums
        return self.finish(float(numerator / denominator)) if denominator else math.nan


@dataclass(frozen=True)
class HitRate(Streaming):
    """Share of elements whose target is among the k largest logits; for one logit, whose sign is the target's."""

    k: int
    ignore_index: int | None = None
    higher_is_better: ClassVar[bool] = True

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return the weighted hits and the weights."""
        if one_logit(prediction, target):
            wanted = xp.cast(match_shape(xp, target, prediction.shape), prediction)
            hits = xp.cast((prediction > 0.0) == (wanted > 0.5), prediction)
            weights = element_weights(xp, weight, prediction)
            return weighted_sums(xp, weights, hits)
        target = match_shape(xp, target, prediction.shape[:-1])
        classes = int(prediction.shape[-1])
        weights = element_weights(xp, weight, prediction[..., 0])
        if self.ignore_index is not None:
            weights = scaled(weights, xp.cast(target != self.ignore_index, prediction))
        if self.k == 1:
            hits = xp.cast(xp.argmax(prediction, axis=-1) == target, prediction)
        else:
            one_hot = xp.one_hot(target, classes, prediction)
            own = xp.sum(one_hot * prediction, axis=-1)[..., None]
            # The target's logit, the smaller ones, and equal ones of later classes; NaN is never among them.
            place = xp.asarray(np.arange(classes), prediction)
            own_place = xp.sum(one_hot * place, axis=-1)[..., None]
            behind = (prediction < own) | ((prediction == own) & (place >= own_place))
            hits = xp.cast(xp.sum(xp.cast(behind, prediction), axis=-1) > classes - self.k, prediction)
            hits = hits * xp.sum(one_hot, axis=-1)
        return weighted_sums(xp, weights, hits)


@dataclass(frozen=True)
class MeanError(Streaming):
    """Mean squared or absolute error over all elements, or the root of the former."""

    squared: bool
    root: bool

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return the weighted errors and the weights."""
        error = prediction - xp.cast(match_shape(xp, target, prediction.shape), prediction)
        weights = element_weights(xp, weight, prediction)
        return weighted_sums(xp, weights, error * error if self.squared else xp.abs(error))

    def finish(self, ratio: float) -> float:
        """Take the root where asked for."""
        return math.sqrt(ratio) if self.root else ratio


@dataclass(frozen=True)
class RelativeError(Streaming):
    """Mean of |y - p| / max(|y|, 2**-52), or with ``symmetric`` of 2 |y - p| / (|y| + |p|), in the units of the data.

    The former as scikit-learn has it; the latter as in the M4 competition (Makridakis et al. 2018), 0 where both are 0.
    """

    symmetric: bool
    units: Units

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return the weighted errors and the weights."""
        scale, shift = (_by_column(xp, numbers, prediction) for numbers in (self.units.scale, self.units.shift))
        p = prediction * scale + shift
        y = xp.cast(match_shape(xp, target, prediction.shape), prediction) * scale + shift
        whole = (xp.abs(y) + xp.abs(p)) * 0.5 if self.symmetric else xp.abs(y)
        errors = xp.abs(y - p) / xp.maximum(whole, 2.0**-52)
        return weighted_sums(xp, element_weights(xp, weight, prediction), errors)


@dataclass(frozen=True)
class ScaledError(Streaming):
    """Mean of |y - p| over the seasonal naive forecast's mean error in the training span, column by column."""

    units: Units

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return the weighted errors and the weights."""
        # Scaled targets err by less, the naive forecast too: one factor for both.
        scale = np.array(self.units.scale) / np.array(self.units.naive)
        error = prediction - xp.cast(match_shape(xp, target, prediction.shape), prediction)
        errors = xp.abs(error) * _by_column(xp, tuple(scale.tolist()), prediction)
        return weighted_sums(xp, element_weights(xp, weight, prediction), errors)


def _by_column(xp: ArrayNamespace, numbers: tuple[float, ...], like: Tensor) -> Tensor | float:
    """Return a number for all, or one for each entry of the last axis of ``like``."""
    return numbers[0] if len(numbers) == 1 else xp.asarray(np.array(numbers), like)


@dataclass(frozen=True)
class Perplexity(Streaming):
    """exp of the mean cross-entropy."""

    spec: losses.CrossEntropy

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return the terms of the cross-entropy."""
        return SoftmaxCrossEntropy(self.spec).terms(xp, prediction, target, weight)

    def finish(self, ratio: float) -> float:
        """Return exp(ratio), infinity where that overflows."""
        return math.inf if ratio > 709.0 else math.exp(ratio)


@dataclass(frozen=True)
class BitsPer(Streaming):
    """Bits that the model needs to write the targets, for each byte or character they stand for.

    The cross-entropy of all tokens over log(2), divided by the sum of ``counts``: it does not depend on how the text
    is cut into tokens.

    Parameters
    ----------
    counts
        Bytes or characters of each token.
    """

    spec: losses.CrossEntropy
    counts: tuple[float, ...]

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return bits, and bytes or characters; those of ignored tokens are none."""
        if len(self.counts) > int(prediction.shape[-1]):
            raise ValueError(f"{len(self.counts)} tokens do not fit {int(prediction.shape[-1])} classes")
        nats, _ = SoftmaxCrossEntropy(self.spec).terms(xp, prediction, target, weight)
        tokens = match_shape(xp, target, prediction.shape[:-1])
        ignored = self.spec.ignore_index
        # Padding, number 0, stands for nothing.
        tokens = tokens if ignored is None else xp.where(tokens != ignored, tokens, 0)
        counts = xp.take(xp.asarray(np.array(self.counts), prediction), tokens)
        weights = element_weights(xp, weight, prediction[..., 0])
        return nats * (1.0 / math.log(2.0)), xp.sum(scaled(weights, counts))


def one_logit(prediction: Any, target: Any) -> bool:
    """Tell one logit an element from one logit a class: by the sizes of prediction and target."""
    return bool(math.prod(prediction.shape[1:]) == math.prod(target.shape[1:]))
