"""Training and inference of a graph in NumPy: the reference for what every other program computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays, Batchable, Plan, Settings, Statistics
from unitrain.backends.host_memory import keep_freed_memory
from unitrain.backends.numpy.candidates import ONE_THREAD, WHOLE
from unitrain.backends.numpy.execution import Mode
from unitrain.backends.numpy.model import NumpyModel
from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.backends.numpy.parameters import FlatParameters
from unitrain.backends.numpy.registry import Array
from unitrain.backends.numpy.shards import Shards
from unitrain.backends.numpy.threads import allowed_threads, one_blas_thread
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.passes.pool_first import pool_first


class NumpyProgram:
    """`contract.Program` in NumPy.

    Parameters
    ----------
    graph, weights, settings, rule
        As for `contract.Backend.compile`.
    """

    def __init__(self, graph: Graph, weights: Arrays, settings: Settings, rule: TrainingRule | None = None) -> None:
        self.graph = graph
        self.rule = rule
        self.model = NumpyModel(graph, weights, settings)
        self._xp = NumpyNamespace()
        self._accumulated = False
        self._execution = settings.execution
        self._flat: FlatParameters | None = None
        if rule is None:
            return
        keep_freed_memory()
        self._shards = Shards(pool_first(graph), self.model.seed)
        shapes = {name: graph.parameters[name].shape for name in graph.trainable}
        self._flat = FlatParameters(shapes, self.model.dtype, rule.updater)
        self._flat.adopt(self.model.weights)
        if "ema" in self._flat.slots:
            for name, array in self._flat.slots["ema"].items():
                array[...] = self.model.weights[name]

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Copy out all parameters, running statistics included."""
        return {name: array.copy() for name, array in self.model.weights.items()}

    def load_weights(self, weights: Arrays) -> None:
        """Take over all parameters; gradients accumulated so far belong to the old ones and are dropped."""
        self.model.load_weights(weights)
        self._accumulated = False

    def slots(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Copy out the optimizer state."""
        slots = self._flat.slots if self._flat else {}
        return {slot: {name: array.copy() for name, array in arrays.items()} for slot, arrays in slots.items()}

    def load_slots(self, slots: Mapping[str, Arrays]) -> None:
        """Take over the optimizer state."""
        for slot, arrays in (self._flat.slots if self._flat else {}).items():
            for name, array in arrays.items():
                array[...] = slots[slot][name]

    def place(self, data: Batchable) -> Batchable:
        """Bring floats into the working precision; integers stay as they are until a batch is gathered."""

        def placed(array: npt.NDArray[Any]) -> Array:
            return array.astype(self.model.dtype, copy=False) if array.dtype.kind == "f" else array

        return Batchable(
            {name: placed(array) for name, array in data.inputs.items()},
            {name: placed(array) for name, array in data.targets.items()},
            None if data.weight is None else data.weight.astype(self.model.dtype),
        )

    @np.errstate(all="ignore")  # what is not finite is found in the loss, not in warnings
    def run_steps(self, placed: Batchable, plan: Plan) -> Statistics:
        """Train for the planned steps, up to the first whose loss is not finite; that one is not applied."""
        if self.rule is None or self._flat is None:
            raise ValueError("the program was compiled without a training rule")
        # Whoever holds the model may have put other arrays in the place of the flat ones.
        self._flat.adopt(self.model.weights)
        threads = 1 if self._execution == ONE_THREAD else allowed_threads()
        parts = 1 if self._execution == WHOLE else self._shards.count(plan.indices.shape[1], threads)
        losses: list[float] = []
        counted: dict[str, list[tuple[float, float]]] = {label: [] for label, _, _ in self.rule.metrics}
        with one_blas_thread() if parts > 1 or threads == 1 else nullcontext():
            for step, rows in enumerate(plan.indices):
                batch = _gather(placed, rows)
                inputs = self.model.prepare(batch.inputs)
                outputs = self._shards.forward(self.model.weights, inputs, plan.first_step + step, parts)
                loss, seeds = self._loss(self.rule, outputs, batch, float(plan.scale[step]))
                losses.append(loss)
                if not np.isfinite(loss):
                    break
                for label, output, metric in self.rule.metrics:
                    numerator, denominator = metric.terms(
                        self._xp, outputs[output], batch.targets[output], batch.weight
                    )
                    counted[label].append((float(numerator), float(denominator)))
                gradients, updates = self._shards.backward(seeds)
                self._accumulate(self._flat.gradients, gradients)
                self.model.weights.update(updates)
                if plan.apply[step]:
                    self._flat.update(plan.coefficients[step], threads)
                    self._accumulated = False
        terms = {label: np.array(pairs, np.float64).reshape(-1, 2) for label, pairs in counted.items()}
        return Statistics(np.array(losses, dtype=np.float64), terms)

    def _loss(
        self, rule: TrainingRule, outputs: Mapping[str, Array], batch: Batchable, scale: float
    ) -> tuple[float, dict[str, Array]]:
        """Return the total loss and the gradients of ``scale`` times it by the outputs.

        The total is sum(factor * numerator / denominator), a term being 0 where its denominator is.
        """
        total = 0.0
        seeds = {}
        for output, (factor, loss) in rule.losses.items():
            arguments = (self._xp, outputs[output], batch.targets[output], batch.weight)
            numerator, denominator = map(float, loss.terms(*arguments))
            if denominator == 0.0:
                continue
            total += factor * numerator / denominator
            seeds[output] = loss.gradient(*arguments) * (factor * scale / denominator)
        return total, seeds

    def _accumulate(self, sums: Mapping[str, Array], gradients: Mapping[str, Sequence[Array]]) -> None:
        """Add the gradients, of each parameter one a shard and in their order, to what is not yet applied."""
        for name, total in sums.items():
            parts = gradients.get(name, ())
            if not self._accumulated:
                total[...] = parts[0] if parts else 0.0
                parts = parts[1:]
            for part in parts:
                total += part
        self._accumulated = True

    def predict(self, inputs: Arrays, batch_size: int = 256) -> dict[str, npt.NDArray[Any]]:
        """Run inference in chunks of ``batch_size`` samples: outputs by name."""
        samples = len(next(iter(inputs.values()), ()))
        if samples == 0:
            return {
                output: np.empty((0, *self.graph.shape(name)), self.model.dtype)
                for output, name in self.graph.outputs.items()
            }
        chunks = []
        for start in range(0, samples, batch_size):
            chunk = {name: array[start : start + batch_size] for name, array in inputs.items()}
            chunks.append(self.model.run(chunk, Mode()).outputs())
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in self.graph.outputs}

    def activations(self, inputs: Arrays, *, training: bool = False, step: int = 0) -> dict[str, npt.NDArray[Any]]:
        """Return the output of every node for one batch."""
        values = self.model.run(inputs, Mode(training, self.model.seed, step), keep=True).values
        return {node.name: values[node.name] for node in self.graph.nodes}

    def differentiate(
        self, inputs: Arrays, output_gradients: Arrays, *, training: bool = True, step: int = 0
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
        """Return outputs, gradients by float inputs, and gradients by trainable parameters."""
        outputs = self.model.forward(inputs, training, step)
        return (outputs, *self.model.backward(output_gradients))


def _gather(data: Batchable, rows: npt.NDArray[np.int32]) -> Batchable:
    """Take the rows of one batch; integer targets become int32, inputs are brought into their kind later."""
    return Batchable(
        {name: array[rows] for name, array in data.inputs.items()},
        {name: _as_target(array[rows]) for name, array in data.targets.items()},
        None if data.weight is None else data.weight[rows],
    )


def _as_target(array: npt.NDArray[Any]) -> Array:
    return array if array.dtype.kind == "f" else array.astype(np.int32, copy=False)
