"""The mathematics of the metrics: ratios of sums that stream on the device, and those that need all samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, assert_never

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import ArrayNamespace, Tensor
from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.data.vocabulary import Vocabulary, WordVocabulary
from unitrain.spec import losses
from unitrain.spec import metrics as specs
from unitrain.spec.errors import InputError
from unitrain.train.losses import SoftmaxCrossEntropy, element_weights, match_shape, scaled, weighted_sums

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


class HostMetric(Protocol):
    """A metric of a whole data set."""

    @property
    def streams(self) -> bool:
        """Whether it is a function of a ratio of sums, and so also a `contract.MetricFunction`."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is a better model."""
        ...

    @property
    def additive(self) -> bool:
        """Whether it is a function of sums or counts, which may be taken piece by piece."""
        ...

    def evaluate(self, prediction: Floats, target: Array, weight: Floats | None) -> Any:
        """Measure predictions ``[batch, ...]``; a number, a list of one a class, or a list of lists for a matrix."""
        ...

    def sums(self, prediction: Floats, target: Array, weight: Floats | None) -> Floats:
        """Return the sums or counts of some samples, for a metric that is additive."""
        ...

    def of_sums(self, sums: Floats) -> Any:
        """Return the value that follows from the sums of all samples."""
        ...

    def finish(self, ratio: float) -> float:
        """Turn a ratio of sums into the metric's value."""
        ...


_OF_CLASSES = (
    specs.Accuracy,
    specs.TopK,
    specs.BalancedAccuracy,
    specs.Precision,
    specs.Recall,
    specs.F1,
    specs.Auc,
    specs.ConfusionMatrix,
    specs.Iou,
    specs.Dice,
)


@dataclass(frozen=True)
class Units:
    """What targets stand for.

    Numbers were scaled before they became targets, for each column or for all: y = scale * target + shift.

    ``naive`` is the error of the seasonal naive forecast in the training span of a series, in the units of y.
    ``vocabulary`` is that of running text, whose tokens are predicted.
    """

    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    naive: tuple[float, ...] = ()
    vocabulary: Vocabulary | None = None


def make_metric(
    spec: specs.Metric, ignore_index: int | None = None, probabilities: bool = False, units: Units | None = None
) -> Any:
    """Return the mathematics of a metric.

    Parameters
    ----------
    spec
        What is measured.
    ignore_index
        Class number of targets that count nothing, in metrics of classes and in perplexity.
    probabilities
        Targets are probabilities of the classes, not class numbers.
    units
        Those of the data, for errors that are relative to it and bits of text; None takes targets as they are.

    Raises
    ------
    InputError
        The metric is of a series or of running text, and the data is none, or never changes.
    """
    if probabilities and isinstance(spec, _OF_CLASSES):
        return OfLikeliest(make_metric(spec, ignore_index))
    match spec:
        case specs.Accuracy():
            return HitRate(1, ignore_index)
        case specs.TopK(k=k):
            return HitRate(k, ignore_index)
        case specs.Perplexity():
            return Perplexity(losses.CrossEntropy(ignore_index=ignore_index))
        case specs.BitsPerByte() | specs.BitsPerCharacter():
            return _bits_per(spec, units, ignore_index)
        case specs.Mse() | specs.Rmse():
            return MeanError(squared=True, root=isinstance(spec, specs.Rmse))
        case specs.Mae():
            return MeanError(squared=False, root=False)
        case specs.Mape() | specs.Smape():
            return RelativeError(isinstance(spec, specs.Smape), units or Units())
        case specs.Mase():
            return ScaledError(_naive_units(units or Units(naive=(1.0,))))
        case specs.R2():
            return Determination()
        case specs.Auc():
            return AreaUnderCurve(ignore_index)
        case specs.BalancedAccuracy() | specs.Precision() | specs.Recall() | specs.F1() | specs.ConfusionMatrix():
            return FromCounts(spec, ignore_index)
        case specs.Iou() | specs.Dice():
            return FromCounts(spec, ignore_index)
        case _:
            assert_never(spec)


class OfLikeliest:
    """A metric of classes where targets are probabilities ``[batch, ..., class]``: the likeliest class is meant."""

    def __init__(self, metric: Any) -> None:
        self.metric = metric
        self.streams: bool = metric.streams
        self.additive: bool = metric.additive
        self.higher_is_better: bool = metric.higher_is_better

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return the metric's numerator and denominator."""
        numerator, denominator = self.metric.terms(xp, prediction, xp.argmax(target, axis=-1), weight)
        return numerator, denominator

    def evaluate(self, prediction: Floats, target: Array, weight: Floats | None) -> Any:
        """Measure a whole data set."""
        return self.metric.evaluate(prediction, target.argmax(axis=-1), weight)

    def sums(self, prediction: Floats, target: Array, weight: Floats | None) -> Floats:
        """Return the sums or counts of some samples."""
        found: Floats = self.metric.sums(prediction, target.argmax(axis=-1), weight)
        return found

    def of_sums(self, sums: Floats) -> Any:
        """Return the value that follows from the sums of all samples."""
        return self.metric.of_sums(sums)

    def finish(self, ratio: float) -> float:
        """Turn a ratio of sums into the metric's value."""
        return float(self.metric.finish(ratio))


class _Streaming:
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
class HitRate(_Streaming):
    """Share of elements whose target is among the k largest logits; for one logit, whose sign is the target's."""

    k: int
    ignore_index: int | None = None
    higher_is_better: ClassVar[bool] = True

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return the weighted hits and the weights."""
        if _one_logit(prediction, target):
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
class MeanError(_Streaming):
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
class RelativeError(_Streaming):
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
class ScaledError(_Streaming):
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


def _naive_units(units: Units) -> Units:
    if not units.naive:
        raise InputError("mase is of a series", hint="state `data.window`, or take mae")
    if 0.0 in units.naive:
        raise InputError("the seasonal naive forecast is never wrong in the training span: nothing to scale by")
    return units


@dataclass(frozen=True)
class Perplexity(_Streaming):
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
class BitsPer(_Streaming):
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


class _Whole:
    """Needs more of all samples than a ratio of sums."""

    streams: ClassVar[bool] = False
    additive: ClassVar[bool] = False
    higher_is_better: ClassVar[bool] = True

    def finish(self, ratio: float) -> float:
        """Not a ratio of sums."""
        raise TypeError(f"{type(self).__name__} does not stream")


@dataclass(frozen=True)
class FromCounts(_Whole):
    """Everything that follows from the confusion matrix."""

    spec: (
        specs.BalancedAccuracy
        | specs.Precision
        | specs.Recall
        | specs.F1
        | specs.ConfusionMatrix
        | specs.Iou
        | specs.Dice
    )
    ignore_index: int | None = None
    additive: ClassVar[bool] = True

    def evaluate(self, prediction: Floats, target: Array, weight: Floats | None) -> Any:
        """Measure by counting."""
        return self.of_sums(self.sums(prediction, target, weight))

    def sums(self, prediction: Floats, target: Array, weight: Floats | None) -> Floats:
        """Return the confusion matrix."""
        return confusion(prediction, target, weight, self.ignore_index)

    def of_sums(self, sums: Floats) -> Any:
        """Return what follows from the confusion matrix."""
        counts = sums
        right, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
        match self.spec:
            case specs.ConfusionMatrix():
                return counts.tolist()
            case specs.BalancedAccuracy():
                return float(_quotient(right, true)[true > 0].mean()) if true.any() else math.nan
            case specs.Precision(average=average):
                return _averaged(right, predicted, true, average)
            case specs.Recall(average=average):
                return _averaged(right, true, true, average)
            case specs.F1(average=average):
                return _averaged(2.0 * right, predicted + true, true, average)
            case specs.Iou(average=overlap):
                return _overlap(right, true + predicted - right, overlap)
            case specs.Dice(average=overlap):
                return _overlap(2.0 * right, true + predicted, overlap)


@dataclass(frozen=True)
class AreaUnderCurve(_Whole):
    """Share of (positive, negative) pairs in the right order, ties half (Hanley & McNeil 1982)."""

    ignore_index: int | None = None

    def evaluate(self, prediction: Floats, target: Array, weight: Floats | None) -> float:
        """Measure one class against the rest, for each class that occurs, when there are more than two."""
        scores, wanted, weights = _flat(prediction, target, weight, self.ignore_index)
        if scores.shape[1] == 1:
            return _area(scores[:, 0], wanted == 1, weights)
        if scores.shape[1] == 2:
            return _area(scores[:, 1] - scores[:, 0], wanted == 1, weights)
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = shifted / shifted.sum(axis=1, keepdims=True)
        areas = [_area(probabilities[:, k], wanted == k, weights) for k in range(scores.shape[1])]
        known = [area for area in areas if not math.isnan(area)]
        return float(np.mean(known)) if known else math.nan


@dataclass(frozen=True)
class Determination(_Whole):
    """1 - sum(w (y - p)^2) / sum(w (y - mean)^2), the mean over targets; NaN for a constant target."""

    def evaluate(self, prediction: Floats, target: Array, weight: Floats | None) -> float:
        """Measure in float64."""
        count = len(prediction)
        p = prediction.reshape(count, -1)
        y = match_shape(NumpyNamespace(), target, prediction.shape).astype(np.float64).reshape(count, -1)
        w = np.ones((count, 1)) if weight is None else weight[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (w * y).sum(axis=0) / w.sum()
            total = (w * (y - mean) ** 2).sum(axis=0)
            scores = np.where(total > 0, 1.0 - (w * (y - p) ** 2).sum(axis=0) / total, np.nan)
        return float(scores.mean())


def confusion(prediction: Floats, target: Array, weight: Floats | None, ignore_index: int | None = None) -> Floats:
    """Count ``[true class, predicted class]``, weighted where there are weights.

    Raises
    ------
    InputError
        A class number in ``target`` is none of the model's classes.
    """
    scores, wanted, weights = _flat(prediction, target, weight, ignore_index)
    if scores.shape[1] == 1:
        chosen, classes = (scores[:, 0] > 0.0).astype(np.int64), 2
    else:
        chosen, classes = scores.argmax(axis=1), scores.shape[1]
    outside = wanted[(wanted < 0) | (wanted >= classes)]
    if len(outside):
        raise InputError("not a class of the model", found=str(outside[0]), allowed=f"0 .. {classes - 1}")
    cells = np.bincount(wanted * classes + chosen, weights=weights, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.float64)


def _bits_per(
    spec: specs.BitsPerByte | specs.BitsPerCharacter, units: Units | None, ignore_index: int | None
) -> BitsPer:
    vocabulary = None if units is None else units.vocabulary
    if vocabulary is None or isinstance(vocabulary, WordVocabulary):
        raise InputError(
            f"{spec.type} is of running text that is predicted token by token",
            hint=None
            if vocabulary is None
            else "a vocabulary of words leaves blanks out: take bytes, characters or bpe",
        )
    counts = vocabulary.byte_counts() if isinstance(spec, specs.BitsPerByte) else vocabulary.character_counts()
    return BitsPer(losses.CrossEntropy(ignore_index=ignore_index), tuple(counts.tolist()))


def _one_logit(prediction: Any, target: Any) -> bool:
    """Tell one logit an element from one logit a class: by the sizes of prediction and target."""
    return bool(math.prod(prediction.shape[1:]) == math.prod(target.shape[1:]))


def _flat(
    prediction: Floats, target: Array, weight: Floats | None, ignore_index: int | None
) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Return scores ``[n, classes or 1]``, class numbers ``[n]`` and weights ``[n]``, ignored ones left out."""
    one_logit = _one_logit(prediction, target)
    wanted = match_shape(NumpyNamespace(), target, prediction.shape if one_logit else prediction.shape[:-1])
    # A yes or no may be given as a probability; class numbers may have been stored as floats.
    wanted = (wanted > 0.5 if one_logit else wanted).reshape(-1).astype(np.int64)
    scores = prediction.reshape(len(wanted), -1)
    elements = len(wanted) // max(len(prediction), 1)
    weights = np.ones(len(wanted)) if weight is None else np.repeat(weight, elements)
    if ignore_index is not None:
        kept = wanted != ignore_index
        scores, wanted, weights = scores[kept], wanted[kept], weights[kept]
    return scores, wanted, weights


def _quotient(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _averaged(
    numerator: Floats, denominator: Floats, true: Floats, average: specs.Average | None
) -> float | list[float]:
    """Average a quotient over the classes, 0 where a class has no denominator; or list it class by class.

    Raises
    ------
    ValueError
        The average is binary, and there are more than two classes.
    """
    chosen = average or ("binary" if len(true) == 2 else "macro")
    if chosen == "binary":
        if len(true) != 2:
            raise ValueError(f"average 'binary' is of two classes and there are {len(true)}: choose macro or micro")
        return float(_quotient(numerator, denominator)[1])
    if chosen == "micro":
        return float(numerator.sum() / denominator.sum()) if denominator.sum() else 0.0
    values = _quotient(numerator, denominator)
    if chosen == "per_class":
        return [float(value) for value in values]
    if chosen == "weighted":
        return float((values * true).sum() / true.sum()) if true.sum() else 0.0
    return float(values.mean())


def _overlap(numerator: Floats, denominator: Floats, average: specs.Overlap) -> float | list[float]:
    """Average a quotient over the classes that have a denominator; NaN without any."""
    if average == "per_class":
        return [float(n / d) if d else math.nan for n, d in zip(numerator, denominator, strict=True)]
    if not denominator.any():
        return math.nan
    if average == "micro":
        return float(numerator.sum() / denominator.sum())
    return float((numerator[denominator > 0] / denominator[denominator > 0]).mean())


def _area(scores: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> float:
    """Count the weight of the pairs in the right order, ties half; NaN without both kinds."""
    _, place = np.unique(scores, return_inverse=True)
    up = np.bincount(place, weights=weights * positive)
    down = np.bincount(place, weights=weights * ~positive)
    if not up.sum() or not down.sum():
        return math.nan
    below = np.cumsum(down) - down
    return float((up * (below + 0.5 * down)).sum() / (up.sum() * down.sum()))
