"""A graph compiled for training and inference with torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unitrain.backends.contract import Arrays, Batchable, Plan, Settings, Statistics, TrainingRule
from unitrain.backends.indices import check_indices
from unitrain.backends.torch.dropout import CounterDropout
from unitrain.backends.torch.module import GraphModule
from unitrain.backends.torch.namespace import NAMESPACE
from unitrain.backends.torch.norm import ChannelsLastBatchNorm
from unitrain.graph.graph import Graph

Array = npt.NDArray[Any]
Tensors = dict[str, torch.Tensor]
Moved = list[tuple[ChannelsLastBatchNorm, torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Placed:
    """A data set on the device."""

    inputs: Tensors
    targets: Tensors
    weight: torch.Tensor | None


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
        self._device = torch.device(settings.device)
        self._dtype: torch.dtype = getattr(torch, settings.precision)
        self._seed = settings.seed
        self._dropouts = [module for module in self.model.modules() if isinstance(module, CounterDropout)]
        self._norms = [module for module in self.model.modules() if isinstance(module, ChannelsLastBatchNorm)]
        self._parameters: Tensors = {name: self.model.tensor(name) for name in graph.trainable}
        self._slots: dict[str, Tensors] = {
            slot: {
                name: tensor.detach().clone() if slot == "ema" else torch.zeros_like(tensor)
                for name, tensor in self._parameters.items()
            }
            for slot in (rule.updater.slots if rule else ())
        }
        self._pending: Tensors = {}

    def weights(self) -> dict[str, Array]:
        """Copy out all parameters, running statistics included, canonical names and layouts."""
        return self.model.canonical_weights()

    def load_weights(self, weights: Arrays) -> None:
        """Take over all parameters; gradients accumulated so far belong to the old ones and are dropped."""
        self.model.load_canonical(weights)
        self._pending = {}

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
                tensors[name] = self.model.to_torch(name, slots[slot][name])

    def place(self, data: Batchable) -> Placed:
        """Copy a data set to the device once.

        Raises
        ------
        InputError
            An index is outside the table of an embedding it reaches.
        """
        check_indices(self.graph, data.inputs)
        return Placed(
            {name: self._stored(data.inputs[name]) for name in self.graph.inputs},
            {name: self._stored(array) for name, array in data.targets.items()},
            None if data.weight is None else self._stored(data.weight.astype(np.float64)),
        )

    def _stored(self, array: Array) -> torch.Tensor:
        """Keep integers as they are (images of bytes stay small), bring floats into the working precision."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.to(self._device, self._dtype) if array.dtype.kind == "f" else tensor.to(self._device)

    def _prepare(self, inputs: Mapping[str, Array]) -> Tensors:
        return {
            name: self._kind(name, torch.from_numpy(np.ascontiguousarray(inputs[name])).to(self._device))
            for name in self.graph.inputs
        }

    def _kind(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._dtype if self.graph.inputs[name].dtype == "float" else torch.int64)

    def run_steps(self, placed: Placed, plan: Plan) -> Statistics:
        """Train for the planned steps, up to the first whose loss is not finite; that one is not applied.

        On the CPU the loss of each step is at hand. On an accelerator nothing is read before the end: a flag on
        the device keeps weights, slots and statistics as they were from the first bad loss on.
        """
        if self.rule is None:
            raise ValueError("the program was compiled without a training rule")
        on_cpu = self._device.type == "cpu"
        rows = torch.from_numpy(plan.indices.astype(np.int64)).to(self._device)
        coefficients = torch.from_numpy(plan.coefficients).to(self._device, self._dtype)
        alive = torch.ones((), dtype=torch.bool, device=self._device)
        losses: list[torch.Tensor] = []
        sums: list[torch.Tensor] = []
        torch.manual_seed(self._seed * 1_000_003 + plan.first_step)
        with self._training():
            for step in range(len(plan)):
                total, gradients, moved, terms = self._step(placed, rows[step], plan, step)
                losses.append(total)
                if on_cpu and not bool(torch.isfinite(total)):
                    break
                keep = None if on_cpu else (alive := alive & torch.isfinite(total))
                sums = [
                    before + _chosen(keep, term, torch.zeros_like(term))
                    for before, term in zip(sums or [0.0] * len(terms), terms, strict=True)
                ]
                self._advance(gradients, moved, coefficients[step], bool(plan.apply[step]), keep)
        return self._statistics(losses, sums)

    def _step(
        self, placed: Placed, rows: torch.Tensor, plan: Plan, step: int
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor | None], Moved, list[torch.Tensor]]:
        """Compute one batch: total loss, gradients of its ``scale``-fold, moved statistics, metric terms."""
        assert self.rule is not None
        inputs = {name: self._kind(name, tensor.index_select(0, rows)) for name, tensor in placed.inputs.items()}
        targets = {name: tensor.index_select(0, rows) for name, tensor in placed.targets.items()}
        weight = None if placed.weight is None else placed.weight.index_select(0, rows)
        outputs, moved = self._call(inputs, plan.first_step + step)
        total = torch.zeros((), dtype=self._dtype, device=self._device)
        seeds = []
        with torch.no_grad():
            for output, (factor, loss) in self.rule.losses.items():
                arguments = (NAMESPACE, outputs[output], targets[output], weight)
                numerator, denominator = loss.terms(*arguments)
                inverse = torch.where(denominator == 0, torch.zeros_like(denominator), 1.0 / denominator)
                total = total + factor * numerator * inverse
                seeds.append(loss.gradient(*arguments) * (inverse * (factor * float(plan.scale[step]))))
            terms = [
                term.to(torch.float64)
                for _, output, metric in self.rule.metrics
                for term in metric.terms(NAMESPACE, outputs[output], targets[output], weight)
            ]
        gradients = torch.autograd.grad(
            [outputs[output] for output in self.rule.losses],
            list(self._parameters.values()),
            seeds,
            allow_unused=True,
        )
        return total, gradients, moved, terms

    @torch.no_grad()
    def _advance(
        self,
        gradients: Sequence[torch.Tensor | None],
        moved: Moved,
        coefficients: torch.Tensor,
        apply: bool,
        keep: torch.Tensor | None,
    ) -> None:
        """Take a step over: running statistics, and the pending gradients if it is time."""
        assert self.rule is not None
        for norm, mean, variance in moved:
            norm.take_over(_chosen(keep, mean, norm.running_mean), _chosen(keep, variance, norm.running_var))
        for (name, parameter), gradient in zip(self._parameters.items(), gradients, strict=True):
            whole = torch.zeros_like(parameter) if gradient is None else gradient
            self._pending[name] = self._pending[name] + whole if name in self._pending else whole
        if not apply:
            return
        parameters, slots = self.rule.updater.update(
            NAMESPACE, self._parameters, self._pending, self._slots, coefficients.unbind()
        )
        for name, value in parameters.items():
            self._parameters[name].copy_(_chosen(keep, value, self._parameters[name]))
        self._slots = {
            slot: {name: _chosen(keep, value, self._slots[slot][name]) for name, value in values.items()}
            for slot, values in slots.items()
        }
        self._pending = {}

    def _statistics(self, losses: list[torch.Tensor], sums: list[torch.Tensor]) -> Statistics:
        """Read the block's numbers from the device."""
        assert self.rule is not None
        values = torch.stack(losses).to(torch.float64).cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(values))
        values = values[: bad[0] + 1] if len(bad) else values
        numbers = torch.stack(sums).cpu().tolist() if sums else [0.0] * (2 * len(self.rule.metrics))
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return Statistics(values, {label: pair for (label, _, _), pair in zip(self.rule.metrics, pairs, strict=True)})

    def _call(self, inputs: Tensors, step: int) -> tuple[Tensors, Moved]:
        """Run the module in its current mode; return outputs by name, and statistics not taken over yet."""
        values, moved = self._run(inputs, step)
        return {output: values[name] for output, name in self.graph.outputs.items()}, moved

    def _run(self, inputs: Tensors, step: int, *, keep: bool = False) -> tuple[Tensors, Moved]:
        for dropout in self._dropouts:
            dropout.step = step
        for norm in self._norms:
            norm.pending = []
        try:
            values = self.model.run(inputs, keep=keep)
            moved = [(norm, *pair) for norm in self._norms for pair in norm.pending or []]
        finally:
            for norm in self._norms:
                norm.pending = None
        return values, moved

    @contextmanager
    def _training(self, training: bool = True) -> Iterator[None]:
        """Set the module's mode for a while."""
        self.model.train(training)
        try:
            yield
        finally:
            self.model.eval()

    def predict(self, inputs: Arrays, batch_size: int = 256) -> dict[str, Array]:
        """Run inference in chunks of ``batch_size``; outputs keyed by graph output name.

        Raises
        ------
        InputError
            An index is outside the table of an embedding it reaches.
        """
        check_indices(self.graph, inputs)
        samples = len(next(iter(inputs.values())))
        chunks: dict[str, list[Array]] = {name: [] for name in self.graph.outputs}
        with torch.inference_mode():
            for first in range(0, max(samples, 1), batch_size):
                part = {name: array[first : first + batch_size] for name, array in inputs.items()}
                outputs, _ = self._call(self._prepare(part), 0)
                for name, tensor in outputs.items():
                    chunks[name].append(tensor.cpu().numpy())
        return {name: np.concatenate(parts) for name, parts in chunks.items()}

    def activations(self, inputs: Arrays, *, training: bool = False, step: int = 0) -> dict[str, Array]:
        """Return the output of every node for one batch."""
        check_indices(self.graph, inputs)
        with torch.no_grad(), self._training(training):
            values, _ = self._run(self._prepare(inputs), step, keep=True)
        return {node.name: values[node.name].cpu().numpy() for node in self.graph.nodes}

    def differentiate(
        self, inputs: Arrays, output_gradients: Arrays, *, training: bool = True, step: int = 0
    ) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        """Return outputs, gradients by float inputs, and gradients by trainable parameters."""
        check_indices(self.graph, inputs)
        prepared = self._prepare(inputs)
        by_input = {
            name: prepared[name].requires_grad_() for name, given in self.graph.inputs.items() if given.dtype == "float"
        }
        with self._training(training):
            outputs, _ = self._call(prepared, step)
        leaves = [*by_input.values(), *self._parameters.values()]
        seeded = [name for name in output_gradients if outputs[name].requires_grad]
        seeds = [torch.tensor(output_gradients[name], dtype=self._dtype, device=self._device) for name in seeded]
        found: Sequence[torch.Tensor | None] = (
            torch.autograd.grad([outputs[name] for name in seeded], leaves, seeds, allow_unused=True) if leaves else []
        )
        gradients = [
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(leaves, found, strict=True)
        ]
        parameters = dict(zip(self._parameters, gradients[len(by_input) :], strict=True))
        return (
            {name: tensor.detach().cpu().numpy() for name, tensor in outputs.items()},
            {name: g.cpu().numpy() for name, g in zip(by_input, gradients, strict=False)},
            {name: self.model.to_canonical(name, gradient) for name, gradient in parameters.items()},
        )


def _chosen(keep: torch.Tensor | None, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Return the new value, or the old one where the flag ``keep`` on the device is down."""
    return new if keep is None else torch.where(keep, new, old)
