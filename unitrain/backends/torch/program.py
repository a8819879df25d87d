"""A graph compiled for training and inference with torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

from unitrain.backends.contract import Arrays, Batchable, Plan, Settings, Statistics
from unitrain.backends.host_memory import keep_freed_memory
from unitrain.backends.indices import check_indices
from unitrain.backends.precision import host_dtype
from unitrain.backends.rule import TrainingRule
from unitrain.backends.torch.candidates import COMPILED, ONE_THREAD, RECORDED, compiled
from unitrain.backends.torch.dropout import CounterDropout, DropoutsInTurn
from unitrain.backends.torch.loss_scale import all_finite, unscaled
from unitrain.backends.torch.module import GraphModule
from unitrain.backends.torch.namespace import NAMESPACE
from unitrain.backends.torch.recorded import Found, Recorded, Terms, recorded_steps
from unitrain.backends.torch.runtime import (
    differentiable,
    dtype_of,
    limited_threads,
    reproducible,
    seeded,
    tensor_float32,
)
from unitrain.backends.torch.statistics import Moved, TracksStatistics, take_over
from unitrain.backends.torch.transfer import Array, Placed, Tensors, Transfer, copied
from unitrain.backends.torch.update import Updates
from unitrain.backends.torch.way import Way
from unitrain.graph.graph import Graph
from unitrain.graph.passes.pool_first import pool_first
from unitrain.weights.random import mask_key


class TorchProgram:
    """`contract.Program` in torch; ``model`` is the module that holds the weights.

    Parameters
    ----------
    graph, weights, settings, rule
        As for `contract.Backend.compile`.
    """

    def __init__(self, graph: Graph, weights: Arrays, settings: Settings, rule: TrainingRule | None = None) -> None:
        self.graph = graph
        self.rule = rule
        self.model = GraphModule(graph, weights, settings)
        self.model.eval()
        if rule is not None and settings.device == "cpu":
            # As images lie: torch's kernels would reorder the weights at each call, and the gradients after it.
            for parameter in self.model.parameters():
                if parameter.ndim == 4:  # volumes have an order of their own, which gains nothing here
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._way = self.model.way_of(pool_first(graph))
        self._device = torch.device(settings.device)
        if self._device.type == "cpu":
            keep_freed_memory()
        self._dtype = dtype_of(settings)
        self._transfer = Transfer(graph, self._device, self._dtype)
        self._settings = settings
        # What metrics are read in: double, where the device has it.
        self._wide = torch.float32 if self._device.type == "mps" else torch.float64
        # On the CPU reading a number costs nothing; elsewhere a block of steps must not wait for one.
        self._reads = self._device.type == "cpu"
        self._dropouts = [module for module in self.model.modules() if isinstance(module, CounterDropout)]
        self._turns = [module for module in self.model.modules() if isinstance(module, DropoutsInTurn)]
        # torch's own dropout draws from the device's generator, which is seeded for each step.
        self._draws = any(
            isinstance(module, torch.nn.Dropout) and not isinstance(module, CounterDropout)
            for module in self.model.modules()
        )
        self._norms = [module for module in self.model.modules() if isinstance(module, TracksStatistics)]
        self._parameters: Tensors = {name: self.model.tensor(name) for name in graph.trainable}
        self._slots: dict[str, Tensors] = {
            slot: {
                name: tensor.detach().clone() if slot == "ema" else torch.zeros_like(tensor)
                for name, tensor in self._parameters.items()
            }
            for slot in (rule.updater.slots if rule else ())
        }
        self._threads = 1 if settings.execution == ONE_THREAD else None
        self._compiled = compiled(self._outputs) if settings.execution == COMPILED else None
        # Recordings by how many steps they hold, and of how many samples.
        self._recorded: dict[tuple[int, int], Recorded] | None = {} if settings.execution == RECORDED else None
        # 0 while the losses of a block that is recorded are finite, else NaN.
        self._flag = torch.zeros((), device=self._device)
        self._updates = Updates(rule.updater, self._parameters, self._slots) if rule else None
        # Gradients by the parameters, of batches whose update is still to come.
        self._pending: list[torch.Tensor] = []

    def weights(self) -> dict[str, Array]:
        """Copy out all parameters, running statistics included, canonical names and layouts."""
        return self.model.canonical_weights()

    def load_weights(self, weights: Arrays) -> None:
        """Take over all parameters; gradients accumulated so far belong to the old ones and are dropped."""
        self.model.load_canonical(weights)
        self._pending = []

    def slots(self) -> dict[str, dict[str, Array]]:
        """Copy out the optimizer state: ``{slot: {parameter: array}}``, canonical layouts."""
        return {
            slot: {name: self.model.to_canonical(name, tensor) for name, tensor in tensors.items()}
            for slot, tensors in self._slots.items()
        }

    def load_slots(self, slots: Mapping[str, Arrays]) -> None:
        """Take over the optimizer state (canonical)."""
        for slot, tensors in self._slots.items():
            for name in tensors:
                tensors[name].copy_(self.model.to_torch(name, slots[slot][name]))

    @differentiable()
    def place(self, data: Batchable) -> Placed:
        """Copy a data set to the device once.

        Raises
        ------
        InputError
            An index is outside the table of an embedding it reaches.
        """
        check_indices(self.graph, data.inputs)
        return self._transfer.place(data)

    @differentiable()
    def run_steps(self, placed: Placed, plan: Plan) -> Statistics:
        """Train for the planned steps, up to the first whose loss is not finite; that one is not applied.

        On the CPU the loss of each step is at hand. On an accelerator nothing is read before the end: a flag on
        the device keeps weights, slots and statistics as they were from the first bad loss on, and the steps after
        it are computed in vain. So it goes with the first update that is skipped under a loss scale.
        """
        if self.rule is None or self._updates is None:
            raise ValueError("the program was compiled without a training rule")
        whole = plan.loss_scale is None and not self._pending and bool(np.all(plan.apply) and np.all(plan.scale == 1.0))
        if self._recorded is not None and whole:
            return self._replay_steps(self._recorded, placed, plan)
        self._updates.begin(plan.coefficients)
        rows = self._transfer.moved(plan.indices, torch.int64).unbind()
        sound = torch.ones((), dtype=torch.bool, device=self._device)
        scaled = plan.loss_scale is not None
        losses: list[torch.Tensor] = []
        skips: list[torch.Tensor] = []
        counted: list[list[torch.Tensor | float]] = []
        # Only the model's own pass is recorded.
        with limited_threads(self._threads), self._mode(training=True), torch.no_grad():
            for step in range(len(plan)):
                batch = self._transfer.gather(placed, rows[step])
                total, gradients, moved, terms = self._step(
                    batch, plan.first_step + step, float(plan.scale[step]), plan.loss_scale
                )
                losses.append(total)
                if self._reads and not math.isfinite(total.item()):
                    break
                keep = finite = None if self._reads and not scaled else sound & torch.isfinite(total)
                if keep is not None and scaled:
                    finite = keep & all_finite(gradients)
                counted.append(terms)
                take_over(moved, finite)
                going = self._advance(gradients, plan, step, keep, finite)
                if keep is None or going is None:
                    continue
                sound = going
                if scaled:
                    skips.append(keep & ~going)
                    if self._reads and not going.item():
                        break
        columns = [_column([terms[number] for terms in counted]) for number in range(2 * len(self.rule.metrics))]
        return self._statistics(torch.stack(losses), columns, torch.stack(skips) if skips else None)

    def _replay_steps(self, recorded: dict[tuple[int, int], Recorded], placed: Placed, plan: Plan) -> Statistics:
        """Train for the planned steps by recordings, as many steps at once as there are, then one by one."""
        assert self._updates is not None
        indices = self._transfer.moved(plan.indices, torch.int64)
        rows = self._updates.rows(plan.coefficients)
        self._flag.zero_()
        found: list[Found] = []
        with self._mode(training=True), torch.no_grad():
            first = 0
            while first < len(plan):
                left = indices[first:]
                one = self._transfer.gather(placed, left[0])
                together = recorded_steps(len(self.graph.nodes), sum(tensor.nbytes for tensor in one.tensors))
                together = together if together <= len(left) else 1
                batch = one if together == 1 else self._transfer.gather(placed, left[:together].flatten())
                key = (together, left.shape[1])
                if key not in recorded:
                    recorded[key] = Recorded(self._recorded_step, together, batch, rows[:together], self._flag)
                number = plan.first_step + first
                seeding = partial(self._seeded, number) if self._draws else nullcontext
                found.append(recorded[key].run(batch, number, rows[first : first + together], seeding))
                first += together
        counted = zip(*(part.terms for part in found), strict=True)
        terms = [torch.cat(parts) if isinstance(parts[0], torch.Tensor) else parts[0] for parts in counted]
        return self._statistics(torch.cat([part.losses for part in found]), terms)

    def _recorded_step(
        self, batch: Placed, number: torch.Tensor, row: torch.Tensor, flag: torch.Tensor
    ) -> tuple[torch.Tensor, Terms]:
        """Take one step of which the device knows all; see `recorded.Step`."""
        assert self._updates is not None
        total, gradients, moved, terms = self._step(batch, number, 1.0, None)
        # 0 times what is not finite is NaN, and what is NaN stays so.
        keep = flag.add_(total, alpha=0.0) == 0.0
        take_over(moved, keep)
        self._updates.apply_row(gradients, row, keep)
        return total, terms

    def _step(
        self, batch: Placed, number: int | torch.Tensor, factor: float, loss_scale: float | None
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[Moved], Terms]:
        """Compute one batch: total loss, gradients of its ``factor``-fold, moved statistics, metric terms."""
        assert self.rule is not None
        scale = 1.0 if loss_scale is None else loss_scale
        with torch.enable_grad():
            outputs, moved = self._call(batch.inputs, number)
        totals, seeds = [], {}
        for output, (share, loss) in self.rule.losses.items():
            arguments = (NAMESPACE, outputs[output], batch.targets[output], batch.weight)
            numerator, denominator = loss.terms(*arguments)
            # A loss in which nothing counts is 0, and so is its gradient.
            divisor: Any = (
                torch.where(denominator == 0, math.inf, denominator)
                if isinstance(denominator, torch.Tensor)
                else denominator or math.inf
            )
            inverse = share / divisor
            totals.append(numerator * inverse)
            seeds[output] = loss.gradient(*arguments) * (inverse * (factor * scale))
        terms = [
            term.to(self._wide) if isinstance(term, torch.Tensor) else term
            for _, output, metric in self.rule.metrics
            for term in metric.terms(NAMESPACE, outputs[output], batch.targets[output], batch.weight)
        ]
        gradients = _gradients(outputs, seeds, list(self._parameters.values()))
        if loss_scale is not None:
            gradients = unscaled(gradients, scale)
        return sum(totals[1:], totals[0]), gradients, moved, terms

    def _advance(
        self,
        gradients: list[torch.Tensor],
        plan: Plan,
        step: int,
        keep: torch.Tensor | None,
        finite: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """Add a batch's gradients to the pending ones, and apply them if it is time.

        Under a loss scale only where they are finite; ``finite`` tells it of this batch alone. Return ``keep``, down
        where the update was skipped.
        """
        assert self._updates is not None
        if self._pending:
            gradients = [
                _chosen(keep, known + gradient, known) for known, gradient in zip(self._pending, gradients, strict=True)
            ]
        if plan.apply[step]:
            if keep is not None and plan.loss_scale is not None:
                keep = keep & all_finite(gradients) if self._pending else finite
            self._updates.apply(gradients, step, keep)
            self._pending = []
        else:
            fresh = keep is not None and not self._pending
            self._pending = [_chosen(keep, g, torch.zeros_like(g)) for g in gradients] if fresh else gradients
        return keep

    def _statistics(
        self, losses: torch.Tensor, columns: Sequence[torch.Tensor | float], skips: torch.Tensor | None = None
    ) -> Statistics:
        """Read the block's numbers from the device.

        Parameters
        ----------
        losses
            ``[steps]``.
        columns
            Numerators and denominators of the metrics by turns, ``[steps]`` or one number for all.
        skips
            Of all steps or of those before a bad loss.
        """
        assert self.rule is not None
        values = losses.cpu().to(torch.float64).numpy()
        skipped = np.zeros(len(values), bool)
        if skips is not None:
            skipped[: len(skips)] = skips.cpu().numpy()
        ends = np.flatnonzero(skipped | ~np.isfinite(values))
        done = ends[0] + 1 if len(ends) else len(values)
        values = values[:done]
        finite = int(np.isfinite(values).sum())
        read = [
            column.cpu().to(torch.float64).numpy()[:finite]
            if isinstance(column, torch.Tensor)
            else np.full(finite, column, np.float64)
            for column in columns
        ]
        terms = {
            label: np.stack(read[2 * number : 2 * number + 2], axis=1)
            for number, (label, _, _) in enumerate(self.rule.metrics)
        }
        return Statistics(values, terms, bool(skipped[:done].any()))

    def _call(self, inputs: Tensors, step: int | torch.Tensor) -> tuple[Tensors, list[Moved]]:
        """Run the module in its current mode; return outputs by name, and statistics not taken over yet."""
        if self._compiled is not None and self.model.training:
            return self._compiled(inputs), []
        values, moved = self._run(inputs, step, way=self._way)
        return {output: values[name] for output, name in self.graph.outputs.items()}, moved

    def _outputs(self, inputs: Tensors) -> Tensors:
        """Compute the outputs of a model that nothing else enters: neither the step nor statistics."""
        values = self.model.run(inputs, way=self._way)
        return {output: values[name] for output, name in self.graph.outputs.items()}

    def _run(
        self, inputs: Tensors, step: int | torch.Tensor, *, keep: bool = False, way: Way | None = None
    ) -> tuple[Tensors, list[Moved]]:
        for dropout in self._dropouts:
            dropout.step = step
        for turns in self._turns:
            turns.turn = 0
        for norm in self._norms:
            norm.pending = []
        try:
            with ExitStack() as stack:
                # What is recorded is seeded when it is replayed.
                if self._draws and self.model.training and isinstance(step, int):
                    stack.enter_context(self._seeded(step))
                values = self.model.run(inputs, keep=keep, way=way)
            moved = [(norm, *pair) for norm in self._norms for pair in norm.pending or []]
        finally:
            for norm in self._norms:
                norm.pending = None
        return values, moved

    def _seeded(self, step: int) -> AbstractContextManager[None]:
        high, low = mask_key(self._settings.seed, "torch", step)
        return seeded(self._device, high << 32 | low)

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """Set the module's mode for a while, and what determinism needs."""
        with ExitStack() as stack:
            stack.enter_context(tensor_float32(self._device, self._settings.tf32))
            if self._settings.deterministic:
                stack.enter_context(reproducible(self._device))
            stack.callback(self.model.eval)
            self.model.train(training)
            yield

    def predict(self, inputs: Arrays, batch_size: int = 256) -> dict[str, Array]:
        """Run inference in chunks of ``batch_size``; outputs keyed by graph output name.

        Raises
        ------
        InputError
            An index is outside the table of an embedding it reaches.
        """
        check_indices(self.graph, inputs)
        samples = len(next(iter(inputs.values())))
        if samples == 0:
            return {
                output: np.empty((0, *self.graph.shape(name)), host_dtype(self._settings.precision))
                for output, name in self.graph.outputs.items()
            }
        chunks: dict[str, list[Array]] = {name: [] for name in self.graph.outputs}
        with torch.inference_mode(), self._mode(training=False):
            for first in range(0, samples, batch_size):
                part = {name: array[first : first + batch_size] for name, array in inputs.items()}
                outputs, _ = self._call(self._transfer.inputs(part), 0)
                for name, tensor in outputs.items():
                    chunks[name].append(copied(tensor))
        return {name: np.concatenate(parts) for name, parts in chunks.items()}

    def activations(self, inputs: Arrays, *, training: bool = False, step: int = 0) -> dict[str, Array]:
        """Return the output of every node for one batch."""
        check_indices(self.graph, inputs)
        with torch.no_grad(), self._mode(training):
            values, _ = self._run(self._transfer.inputs(inputs), step, keep=True)
        return {node.name: copied(values[node.name]) for node in self.graph.nodes}

    @differentiable()
    def differentiate(
        self, inputs: Arrays, output_gradients: Arrays, *, training: bool = True, step: int = 0
    ) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        """Return outputs, gradients by float inputs, and gradients by trainable parameters."""
        check_indices(self.graph, inputs)
        prepared = self._transfer.inputs(inputs)
        by_input = {
            name: prepared[name].requires_grad_() for name, given in self.graph.inputs.items() if given.dtype == "float"
        }
        seeds = {name: self._transfer.moved(array, self._dtype) for name, array in output_gradients.items()}
        with self._mode(training):
            outputs, _ = self._call(prepared, step)
            found = _gradients(outputs, seeds, [*by_input.values(), *self._parameters.values()])
        of_inputs, of_parameters = found[: len(by_input)], found[len(by_input) :]
        return (
            {name: copied(tensor) for name, tensor in outputs.items()},
            {name: copied(gradient) for name, gradient in zip(by_input, of_inputs, strict=True)},
            {
                name: self.model.to_canonical(name, gradient)
                for name, gradient in zip(self._parameters, of_parameters, strict=True)
            },
        )


def _gradients(outputs: Tensors, seeds: Tensors, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """Differentiate the sum of seed * output by ``leaves``: zeros where nothing depends on one."""
    used = [name for name in seeds if outputs[name].requires_grad]
    if not used or not leaves:
        return [torch.zeros_like(leaf) for leaf in leaves]
    # What `torch.autograd.grad` calls. Before it does, it imports sympy to compare shapes, half a second, and spends
    # as long on each call as on a small layer.
    found = torch.autograd.Variable._execution_engine.run_backward(
        tuple(outputs[name] for name in used),
        tuple(seeds[name] for name in used),
        False,
        False,
        tuple(leaves),
        allow_unreachable=True,
        accumulate_grad=False,
    )
    return [
        torch.zeros_like(leaf) if gradient is None else gradient for leaf, gradient in zip(leaves, found, strict=True)
    ]


def _chosen(keep: torch.Tensor | None, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Return the new value, or the old one where the flag ``keep`` on the device is down."""
    return new if keep is None else torch.where(keep, new, old)


def _column(terms: Sequence[torch.Tensor | float]) -> torch.Tensor:
    """Put one term of all steps together: each a tensor, or each a number that the host knows already."""
    tensors = [term for term in terms if isinstance(term, torch.Tensor)]
    return torch.stack(tensors) if tensors else torch.tensor(terms, dtype=torch.float64)
