"""Metrics, measured on training batches where they are sums, and on whole data sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import PositiveInt

from unitrain.spec.base import Spec
from unitrain.spec.choice import Choice
from unitrain.spec.named import BY_NAME

Average = Literal["binary", "macro", "micro", "weighted", "per_class"]
Overlap = Literal["macro", "micro", "per_class"]


class _Metric(Spec):
    """What every metric has.

    Parameters
    ----------
    output
        The model output that is measured; may be left out when only one is trained.
    """

    output: str | None = None


class Accuracy(_Metric):
    """Share of elements whose largest logit is the target's; for one logit, whose sign is."""

    type: Literal["accuracy"] = "accuracy"


class TopK(_Metric):
    """Share of elements whose target is among the ``k`` largest logits; of equal logits the first count."""

    type: Literal["top_k"] = "top_k"
    k: PositiveInt = 5


class BalancedAccuracy(_Metric):
    """Mean over the classes that occur of the share of their samples that is found."""

    type: Literal["balanced_accuracy"] = "balanced_accuracy"


class Precision(_Metric):
    """Share of a class's predictions that are right, 0 where there are none.

    ``average``: of class 1 of two (``binary``), the mean over all classes, those that never occur too (``macro``),
    over all samples (``micro``), the mean weighted by the classes' sizes (``weighted``), or a list, a number a class
    (``per_class``). By default binary for two classes, else macro. Of several yes or no labels a sample
    ``[batch, label]`` the averages are those over the labels; binary, the default, takes their answers together.
    """

    type: Literal["precision"] = "precision"
    average: Average | None = None


class Recall(_Metric):
    """Share of a class's samples that are found; ``average`` as in `Precision`."""

    type: Literal["recall"] = "recall"
    average: Average | None = None


class F1(_Metric):
    """Harmonic mean of precision and recall; ``average`` as in `Precision`."""

    type: Literal["f1"] = "f1"
    average: Average | None = None


class Auc(_Metric):
    """Exact area under the ROC curve: the share of pairs in the right order, ties counted half.

    For more than two classes the mean over classes of one against the rest; of several yes or no labels,
    ``[batch, label]``, the mean over the labels. A class or label without a positive or a negative sample is left out.
    """

    type: Literal["auc"] = "auc"


class Iou(_Metric):
    """Intersection over union (Jaccard index) of the elements of a class: right / (true + predicted - right).

    ``average``: the mean over the classes that occur in targets or predictions (``macro``, the mean IoU), over all
    elements (``micro``), or a list with the value of each class (``per_class``, NaN for one that never occurs).
    """

    type: Literal["iou"] = "iou"
    average: Overlap = "macro"


class Dice(_Metric):
    """Dice coefficient of the elements of a class: 2 right / (true + predicted); ``average`` as in `Iou`."""

    type: Literal["dice"] = "dice"
    average: Overlap = "macro"


class ConfusionMatrix(_Metric):
    """Counts ``[true class][predicted class]``."""

    type: Literal["confusion_matrix"] = "confusion_matrix"


class Mse(_Metric):
    """Mean squared error."""

    type: Literal["mse"] = "mse"


class Rmse(_Metric):
    """Root of the mean squared error over all elements: of several targets together, not target by target."""

    type: Literal["rmse"] = "rmse"


class Mae(_Metric):
    """Mean absolute error."""

    type: Literal["mae"] = "mae"


class Mape(_Metric):
    """Mean absolute percentage error as a fraction: of ``|y - p| / max(|y|, 2**-52)``, in the units of the data."""

    type: Literal["mape"] = "mape"


class Smape(_Metric):
    """Symmetric mean absolute percentage error, 0 to 2: of ``2 |y - p| / (|y| + |p|)``, in the units of the data."""

    type: Literal["smape"] = "smape"


class Mase(_Metric):
    """Mean absolute scaled error of a series: the error over that of the seasonal naive forecast in the training span.

    The season is that of ``data.window``; of several columns each is scaled by its own (Hyndman & Koehler 2006).
    """

    type: Literal["mase"] = "mase"


class R2(_Metric):
    """Coefficient of determination, 1 - residual / total sum of squares; the mean over several targets."""

    type: Literal["r2"] = "r2"


class Perplexity(_Metric):
    """exp of the mean cross-entropy."""

    type: Literal["perplexity"] = "perplexity"


class BitsPerByte(_Metric):
    """Cross-entropy in bits for each byte of UTF-8 that the predicted tokens stand for.

    For models of running text; comparable between vocabularies, and with what a compressor needs.
    """

    type: Literal["bits_per_byte"] = "bits_per_byte"


class BitsPerCharacter(_Metric):
    """Cross-entropy in bits for each character that the predicted tokens stand for."""

    type: Literal["bits_per_character"] = "bits_per_character"


Metric = Annotated[
    Annotated[
        Accuracy
        | TopK
        | BalancedAccuracy
        | Precision
        | Recall
        | F1
        | Auc
        | ConfusionMatrix
        | Iou
        | Dice
        | Mse
        | Rmse
        | Mae
        | Mape
        | Smape
        | Mase
        | R2
        | Perplexity
        | BitsPerByte
        | BitsPerCharacter,
        Choice(),
    ],
    BY_NAME,
]
