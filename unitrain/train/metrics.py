"""Which mathematics a metric has: ratios of sums that stream on the device, and what needs all samples."""

from __future__ import annotations

from typing import Any, Protocol, assert_never

import numpy as np
import numpy.typing as npt

from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.data.vocabulary import WordVocabulary
from unitrain.spec import losses
from unitrain.spec import metrics as specs
from unitrain.spec.errors import InputError
from unitrain.train.series_metrics import OfSeries
from unitrain.train.streaming_metrics import (
    BitsPer,
    HitRate,
    MeanError,
    Perplexity,
    RelativeError,
    ScaledError,
    Units,
)
from unitrain.train.whole_metrics import AreaUnderCurve, Determination, FromCounts

__all__ = ["HostMetric", "Units", "make_metric"]

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


class HostMetric(Protocol):
    """A metric of a whole data set."""

    @property
    def streams(self) -> bool:
        """Whether it is a function of a ratio of sums, and so also a `rule.MetricFunction`."""
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
            relative = RelativeError(
                isinstance(spec, specs.Smape), Units() if units is None or units.of_series else units
            )
            return OfSeries(relative, naive=False) if units is not None and units.of_series else relative
        case specs.Mase() if units is not None and units.of_series:
            _naive_units(units)
            return OfSeries(MeanError(squared=False, root=False), naive=True)
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


def _naive_units(units: Units) -> Units:
    if not units.naive:
        raise InputError("mase is of a series", hint="state `data.window`, or take mae")
    if 0.0 in units.naive:  # of many series, the largest of them
        raise InputError("the seasonal naive forecast is never wrong in the training span: nothing to scale by")
    return units


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
