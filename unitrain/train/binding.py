"""Ties the metrics of a recipe to the outputs they measure, and names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unitrain.spec import metrics as specs
from unitrain.spec.errors import InputError, unknown_name
from unitrain.spec.losses import KlDivergence
from unitrain.spec.recipe import OutputLoss
from unitrain.train.metrics import Units, make_metric


@dataclass(frozen=True)
class BoundMetric:
    """A metric, the output it measures, and what it is called."""

    label: str
    output: str
    metric: Any


def metric_labels(metrics: Sequence[specs.Metric], outputs: Sequence[str]) -> list[str]:
    """Return what the metrics of a recipe are called: ``f1``, ``top_5``, ``precision_macro``, ``output/accuracy``.

    Raises
    ------
    InputError
        A metric names an output that is not there, or stands twice.
    """
    labels: list[str] = []
    for index, metric in enumerate(metrics):
        label = _label(metric, _output(metric, index, outputs), outputs)
        if label in labels:
            raise InputError("the metric stands twice", field=("metrics", index), found=label)
        labels.append(label)
    return labels


def bind_metrics(
    metrics: Sequence[specs.Metric], trained: Mapping[str, OutputLoss], units: Mapping[str, Units] | None = None
) -> tuple[BoundMetric, ...]:
    """Build the metrics of a recipe for its trained outputs.

    Parameters
    ----------
    units
        Those of each output whose targets are numbers; None where there is no data to tell.

    Raises
    ------
    InputError
        A metric does not fit the data.
    """
    outputs = list(trained)
    bound = []
    for index, (spec, label) in enumerate(zip(metrics, metric_labels(metrics, outputs), strict=True)):
        output = _output(spec, index, outputs)
        loss = trained[output].loss
        ignored = getattr(loss, "ignore_index", None)
        known = None if units is None else units.get(output, Units())
        try:
            metric = make_metric(spec, ignored, isinstance(loss, KlDivergence), known)
        except InputError as error:
            problem = error.problems[0]
            raise InputError.from_problems([replace(problem, field=("metrics", index), found=label)]) from None
        bound.append(BoundMetric(label, output, metric))
    return tuple(bound)


def _output(metric: specs.Metric, index: int, outputs: Sequence[str]) -> str:
    if metric.output is None:
        if len(outputs) > 1:
            raise InputError(
                "a metric must name its output when several are trained",
                field=("metrics", index),
                allowed=", ".join(outputs),
            )
        return outputs[0]
    if metric.output not in outputs:
        raise unknown_name("output", metric.output, outputs, ("metrics", index, "output"))
    return metric.output


def _label(metric: specs.Metric, output: str, outputs: Sequence[str]) -> str:
    average = getattr(metric, "average", None)
    if isinstance(metric, (specs.Iou, specs.Dice)) and average == "macro":
        average = None  # what both are by themselves
    name = f"top_{metric.k}" if isinstance(metric, specs.TopK) else metric.type + (f"_{average}" if average else "")
    return name if len(outputs) == 1 else f"{output}/{name}"
