"""Metrics that need more of all samples than a ratio of sums: counts of classes, ranks, a mean before deviations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.spec import metrics as specs
from unitrain.spec.errors import InputError
from unitrain.train.losses import match_shape
from unitrain.train.streaming_metrics import one_logit

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


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
        """Return the confusion matrix, or with an average over several yes or no labels that of each."""
        averaged = isinstance(self.spec, (specs.Precision, specs.Recall, specs.F1)) and self.spec.average
        if averaged and averaged != "binary" and several_labels(prediction, target):
            wanted = match_shape(NumpyNamespace(), target, prediction.shape)
            each = range(prediction.shape[-1])
            return np.stack([confusion(prediction[:, k], wanted[:, k], weight, self.ignore_index) for k in each])
        return confusion(prediction, target, weight, self.ignore_index)

    def of_sums(self, sums: Floats) -> Any:
        """Return what follows from the confusion matrix."""
        counts = sums
        if counts.ndim == 2:
            right, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
        else:  # of each label, whose "yes" is what is found
            right, true, predicted = counts[:, 1, 1], counts[:, 1].sum(axis=1), counts[:, :, 1].sum(axis=1)
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
        """Measure; the mean over several yes or no labels, or over more than two classes, each against the rest.

        A label or class without a positive or a negative sample is left out.
        """
        if several_labels(prediction, target):
            wanted = match_shape(NumpyNamespace(), target, prediction.shape)
            each = range(prediction.shape[1])
            return _mean_of_known([self.evaluate(prediction[:, k], wanted[:, k], weight) for k in each])
        scores, wanted, weights = _flat(prediction, target, weight, self.ignore_index)
        if scores.shape[1] == 1:
            return _area(scores[:, 0], wanted == 1, weights)
        if scores.shape[1] == 2:
            return _area(scores[:, 1] - scores[:, 0], wanted == 1, weights)
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = shifted / shifted.sum(axis=1, keepdims=True)
        return _mean_of_known([_area(probabilities[:, k], wanted == k, weights) for k in range(scores.shape[1])])


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


def several_labels(prediction: Floats, target: Array) -> bool:
    """Tell whether each sample answers several yes or no questions: ``[batch, label]`` logits, as many targets."""
    return prediction.ndim == 2 and prediction.shape[1] > 1 and one_logit(prediction, target)


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


def _flat(
    prediction: Floats, target: Array, weight: Floats | None, ignore_index: int | None
) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Return scores ``[n, classes or 1]``, class numbers ``[n]`` and weights ``[n]``, ignored ones left out."""
    single = one_logit(prediction, target)
    wanted = match_shape(NumpyNamespace(), target, prediction.shape if single else prediction.shape[:-1])
    # A yes or no may be given as a probability; class numbers may have been stored as floats.
    wanted = (wanted > 0.5 if single else wanted).reshape(-1).astype(np.int64)
    scores = prediction.reshape(len(wanted), -1)
    elements = len(wanted) // max(len(prediction), 1)
    weights = np.ones(len(wanted)) if weight is None else np.repeat(weight, elements)
    if ignore_index is not None:
        kept = wanted != ignore_index
        scores, wanted, weights = scores[kept], wanted[kept], weights[kept]
    return scores, wanted, weights


def _mean_of_known(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


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
