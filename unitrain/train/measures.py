"""What a recipe measures: its losses and metrics, bound to the outputs of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from unitrain.backends.contract import Batchable
from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.backends.rule import LossFunction, TrainingRule
from unitrain.data.preprocess import Preprocessing
from unitrain.data.targets import NumberTarget
from unitrain.graph.graph import Graph
from unitrain.spec.errors import FieldPath, InputError
from unitrain.train.binding import BoundMetric, bind_metrics
from unitrain.train.evaluation import Evaluator
from unitrain.train.losses import make_loss
from unitrain.train.metrics import HostMetric, Units
from unitrain.train.recipe import LoadedRecipe
from unitrain.train.update import Update

# Samples on which losses and metrics are tried out before a run starts.
_TRIED = 4


def _units(state: NumberTarget) -> Units:
    if not state.naive_of:
        return Units(state.shift, state.scale, state.naive)
    # Of many series: MASE has a meaning if one of them changes.
    naive = tuple(float(error) for error in np.max(list(state.naive_of.values()), axis=0))
    return Units(state.shift, state.scale, naive, of_series=True)


@dataclass(frozen=True)
class Measures:
    """Losses and metrics of a recipe, bound to the outputs they measure."""

    losses: Mapping[str, tuple[float, LossFunction]]
    metrics: tuple[BoundMetric, ...]

    @classmethod
    def of(cls, loaded: LoadedRecipe, preprocessing: Preprocessing) -> Measures:
        """Build the losses and metrics that a recipe names, for targets that were scaled as the preprocessing says.

        Raises
        ------
        InputError
            A metric does not fit the data.
        """
        units = {
            name: _units(state) for name, state in preprocessing.targets.items() if isinstance(state, NumberTarget)
        }
        text = preprocessing.text_encoder()
        if text is not None and text.unit == "window":
            units |= {name: Units(vocabulary=text.vocabulary) for name in loaded.losses}
        losses = {name: (item.factor, make_loss(item.loss)) for name, item in loaded.losses.items()}
        return cls(losses, bind_metrics(loaded.recipe.metrics, loaded.losses, units))

    def metric(self, label: str | None) -> HostMetric | None:
        """Return the metric called ``label``, or None: the loss is none."""
        found: HostMetric | None = next((item.metric for item in self.metrics if item.label == label), None)
        return found

    def check(self, graph: Graph, data: Batchable) -> None:
        """Try losses and metrics on a few samples with predictions of zeros, before anything runs.

        Raises
        ------
        InputError
            Targets, class weights or metrics do not fit the outputs.
        """
        samples = min(len(data), _TRIED)
        zeros = {name: np.zeros((samples, *graph.shape(node))) for name, node in graph.outputs.items()}

        def attempt(what: str, field: FieldPath, output: str, measure: Callable[..., Any]) -> None:
            try:
                measure(zeros[output], data.targets[output][:samples], None)
            except (ValueError, IndexError) as error:
                raise InputError(f"{what} does not fit output '{output}': {error}", field=field) from None

        xp = NumpyNamespace()
        for output, (_, loss) in self.losses.items():
            attempt("the loss", ("loss",), output, partial(loss.terms, xp))
        for index, item in enumerate(self.metrics):
            attempt(f"the metric {item.label}", ("metrics", index), item.output, item.metric.evaluate)

    def rule(self, update: Update) -> TrainingRule:
        """Return what a training step computes; metrics that need all samples at once are left out."""
        streamed = [(item.label, item.output, item.metric) for item in self.metrics if item.metric.streams]
        return TrainingRule(self.losses, streamed, update)

    def evaluator(self, batch_size: int) -> Evaluator:
        """Return what measures a data set."""
        metrics = [(item.label, item.output, item.metric) for item in self.metrics]
        return Evaluator(NumpyNamespace(), self.losses, metrics, batch_size)
