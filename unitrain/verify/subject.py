"""What is verified: a resolved model with weights, a few batches of data, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays, Batchable, Precision
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.spec.layers.base import ValueType
from unitrain.spec.losses import MeanSquaredError
from unitrain.spec.model import InputSpec
from unitrain.spec.optimizers import Adam, Optimizer
from unitrain.spec.recipe import OutputLoss
from unitrain.train.binding import BoundMetric, bind_metrics
from unitrain.train.losses import make_loss
from unitrain.train.recipe import LoadedRecipe
from unitrain.train.schedules import make_schedule
from unitrain.train.session import batchable, prepare_data
from unitrain.train.update import Update
from unitrain.verify.rounding import rounded_floats
from unitrain.weights.initialize import initialize
from unitrain.weights.random import stream

Array = npt.NDArray[Any]
Rates = Callable[[int, int], npt.NDArray[np.float64]]

# How many samples are drawn where there is no data, and taken where there is.
SAMPLES = 256
# A batch has at most this many samples, and its values at all nodes at most this many numbers.
BATCH, NUMBERS = 16, 4_000_000


@dataclass(frozen=True)
class Subject:
    """A model and how it is trained.

    Parameters
    ----------
    name
        What the reports call it.
    graph
        The resolved model.
    weights
        All parameters, float32, canonical.
    data
        Samples with targets; float arrays are float32.
    losses
        The loss of each trained output.
    optimizer
        The rule that turns gradients into updates.
    rates
        Learning rates of updates: ``rates(first, count)``.
    metrics
        What is measured beside the loss.
    batch_size, accumulate
        Samples in a batch, and batches in an update.
    seed
        Keys dropout masks and everything drawn.
    real
        Whether the data are the recipe's, and not drawn.
    """

    name: str
    graph: Graph
    weights: Mapping[str, Array]
    data: Batchable
    losses: Mapping[str, OutputLoss]
    optimizer: Optimizer
    rates: Rates
    metrics: tuple[BoundMetric, ...] = ()
    batch_size: int = BATCH
    accumulate: int = 1
    seed: int = 0
    real: bool = False

    def update(self) -> Update:
        """Return the optimizer with the model's parameters that decay."""
        graph = self.graph
        return Update(self.optimizer, {name: graph.parameters[name].decay for name in graph.trainable})

    def rule(self) -> TrainingRule:
        """Return what a training step computes."""
        losses = {name: (item.factor, make_loss(item.loss)) for name, item in self.losses.items()}
        streamed = [(item.label, item.output, item.metric) for item in self.metrics if item.metric.streams]
        return TrainingRule(losses, streamed, self.update())

    def rounded(self, precision: Precision) -> Subject:
        """Return the same with weights and inputs rounded to a precision of 16 bits, so that all start alike."""
        data = replace(self.data, inputs=rounded_floats(self.data.inputs, precision))
        return replace(self, weights=rounded_floats(self.weights, precision), data=data)

    def batch(self, number: int) -> Batchable:
        """Return the samples of one batch, of ``number`` 0, 1, ...: the data in order, again from the start."""
        return rows_of(self.data, self.rows(number))

    def rows(self, number: int) -> npt.NDArray[np.int32]:
        """Return which samples are in a batch."""
        return (np.arange(self.batch_size, dtype=np.int32) + number * self.batch_size) % np.int32(len(self.data))


def rows_of(data: Batchable, rows: npt.NDArray[np.int32]) -> Batchable:
    """Take samples out of a data set."""
    return Batchable(
        {name: array[rows] for name, array in data.inputs.items()},
        {name: array[rows] for name, array in data.targets.items()},
        None if data.weight is None else data.weight[rows],
    )


def model_subject(
    name: str,
    graph: Graph,
    *,
    weights: Arrays | None = None,
    losses: Mapping[str, OutputLoss] | None = None,
    optimizer: Optimizer | None = None,
    rates: Rates | None = None,
    accumulate: int = 1,
    seed: int = 0,
) -> Subject:
    """Make a subject of a model without data: inputs within their declared ranges and fitting targets are drawn.

    Trained outputs have the mean squared error, and Adam trains them, unless stated. The learning rate falls to a
    tenth for three updates out of six, so that a change of it is among what is verified.
    """
    chosen = optimizer or Adam()
    trained = losses
    if trained is None:
        floats = [output for output, node in graph.outputs.items() if graph_dtype(graph, node) == "float"]
        trained = {output: OutputLoss(loss=MeanSquaredError()) for output in floats}
    generator = stream(seed, "verify", "data")
    data = Batchable(
        {key: draw_input(graph, key, SAMPLES, generator) for key in graph.inputs},
        {key: _draw_target(item, graph.shape(graph.outputs[key]), generator) for key, item in trained.items()},
    )
    subject = Subject(
        name,
        graph,
        _as_float32(varied(graph, seed) if weights is None else weights),
        data,
        trained,
        chosen,
        rates or partial(_falling, chosen.lr),
        accumulate=accumulate,
        seed=seed,
    )
    return _fitted(subject)


def recipe_subject(loaded: LoadedRecipe, weights: Arrays | None = None) -> Subject:
    """Make a subject of a recipe, on its own training data; ``weights`` are a run's, or drawn from the seed.

    Raises
    ------
    InputError
        The data are not there or do not fit.
    """
    recipe = loaded.recipe
    prepared = prepare_data(loaded)
    data = batchable(prepared.train)
    rows = np.sort(stream(recipe.seed, "verify", "rows").permutation(len(data))[:SAMPLES]).astype(np.int32)
    samples = rows_of(data, rows)
    steps = -(-len(data) // (recipe.training.batch_size * recipe.training.accumulate))
    # A plateau waits for validation: without one its rate stays, and the steps on it are those of a constant rate.
    schedule = make_schedule(recipe.schedule, recipe.optimizer.lr, steps, steps * recipe.training.epochs)
    subject = Subject(
        recipe.name,
        loaded.graph,
        _as_float32(varied(loaded.graph, recipe.seed) if weights is None else weights),
        Batchable(
            {name: _working(array) for name, array in samples.inputs.items()},
            {name: _working(array) for name, array in samples.targets.items()},
            None if samples.weight is None else samples.weight.astype(np.float32),
        ),
        loaded.losses,
        recipe.optimizer,
        schedule.learning_rates,
        bind_metrics(recipe.metrics, loaded.losses),
        min(recipe.training.batch_size, BATCH),
        recipe.training.accumulate,
        recipe.seed,
        real=True,
    )
    return _fitted(subject)


def _falling(base: float, first: int, count: int) -> npt.NDArray[np.float64]:
    steps = np.arange(first, first + count)
    return np.where(steps // 3 % 2 == 0, base, 0.1 * base)


def _fitted(subject: Subject) -> Subject:
    """Make the batch smaller where the model is large."""
    numbers = sum(int(np.prod(node.output_shape)) for node in subject.graph.nodes) or 1
    limit = max(2, NUMBERS // numbers)
    return replace(subject, batch_size=min(subject.batch_size, limit, len(subject.data)))


def varied(graph: Graph, seed: int) -> dict[str, Array]:
    """Draw initial weights in which no parameter is constant.

    A bias of zeros or a scale of ones, as a model starts with, would hide that a backend leaves it out.
    """
    weights = initialize(graph, seed)
    for name, array in weights.items():
        if array.size and np.ptp(array) == 0.0:
            noise = stream(seed, "verify", "varied", name).uniform(-0.25, 0.25, array.shape)
            weights[name] = array + noise.astype(array.dtype)
    return weights


def draw_input(graph: Graph, name: str, samples: int, generator: np.random.Generator) -> Array:
    """Draw samples of an input: uniform within its declared range, standard normal without one.

    Integers lie within the declared range or what is looked up by them: ``[samples, ...]``.
    """
    given: InputSpec = graph.inputs[name]
    shape = (samples, *given.shape)
    if given.dtype == "integer":
        tables = [lookup.rows for lookup in graph.lookups if lookup.source == name]
        low = 0 if given.low is None else int(np.ceil(given.low))
        high = min([*tables, *([] if given.high is None else [int(np.floor(given.high)) + 1])], default=10)
        return generator.integers(low, max(high, low + 1), shape, dtype=np.int32)
    if given.low is None and given.high is None:
        return generator.normal(size=shape).astype(np.float32)
    # With one end stated the range is one unit wide.
    low_end = given.low if given.low is not None else (given.high or 0.0) - 1.0
    high_end = given.high if given.high is not None else low_end + 1.0
    return generator.uniform(low_end, high_end, shape).astype(np.float32)


def graph_dtype(graph: Graph, name: str) -> ValueType:
    """Return the kind of a node's output or a graph input: ``float`` or ``integer``."""
    return graph.inputs[name].dtype if name in graph.inputs else graph.node(name).dtype


def _draw_target(item: OutputLoss, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Draw targets ``[samples, ...]`` that fit a loss and an output of ``shape``."""
    match item.loss.type:
        case "cross_entropy":
            return generator.integers(0, shape[-1], (SAMPLES, *shape[:-1]), dtype=np.int32)
        case "binary_cross_entropy":
            return generator.integers(0, 2, (SAMPLES, *shape)).astype(np.float32)
        case "kl_divergence":
            drawn = generator.exponential(size=(SAMPLES, *shape))
            shares: Array = (drawn / drawn.sum(axis=-1, keepdims=True)).astype(np.float32)
            return shares
        case _:
            return generator.normal(size=(SAMPLES, *shape)).astype(np.float32)


def _working(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _as_float32(weights: Arrays) -> dict[str, Array]:
    return {name: array.astype(np.float32) for name, array in weights.items()}
