"""Faults of whole programs: blocks of steps, modes, masks, shared layers, several outputs, indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from faults.layer_faults import DROP, IMAGE, NORM, ROW, image_net, row_net
from faults.planting import Fault, Fields, Plant, attribute, entry, other_rule

import unitrain.backends.keras.program
import unitrain.backends.torch.program
from unitrain.backends.keras.training import Training
from unitrain.backends.rule import TrainingRule
from unitrain.backends.torch import dropout as torch_dropout
from unitrain.backends.torch import registry as torch_registry
from unitrain.backends.torch.module import GraphModule
from unitrain.backends.torch.program import TorchProgram
from unitrain.backends.torch.runtime import reproducible
from unitrain.graph.resolve import resolve
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam, Sgd
from unitrain.spec.recipe import OutputLoss
from unitrain.verify.subject import Subject, model_subject

TANH: Fields = {"type": "tanh", "name": "act"}


def method(owner: type[Any], name: str, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Plant:
    """Replace a method by ``change(right)``."""
    return lambda: attribute(owner, name, change(getattr(owner, name)))


def _first_row(right: Any) -> Any:
    """The whole block is trained with its first step's numbers."""

    def wrong(self: Any, placed: Any, plan: Any) -> Any:
        rows = plan.coefficients.copy()
        rows[:] = rows[0]
        return right(self, placed, replace(plan, coefficients=rows))

    return wrong


@contextmanager
def _masks_of_the_first_step() -> Iterator[None]:
    first = [0]
    block, one = TorchProgram.run_steps, TorchProgram._step

    def run_steps(self: Any, placed: Any, plan: Any) -> Any:
        first[0] = plan.first_step
        return block(self, placed, plan)

    def step(self: Any, batch: Any, number: Any, *others: Any) -> Any:
        return one(self, batch, first[0], *others)

    with attribute(TorchProgram, "run_steps", run_steps), attribute(TorchProgram, "_step", step):
        yield


def _masks_one_step_late(right: Any) -> Any:
    return lambda self, placed, plan: right(self, placed, replace(plan, first_step=plan.first_step + 1))


def _gradients_kept(right: Any) -> Any:
    """No ``zero_grad``: what was applied is added to the next gradients."""

    def wrong(self: Any, gradients: Any, plan: Any, step: int, *flags: Any) -> Any:
        known = [tensor.clone() for tensor in self._pending or gradients]
        again = [0.0 * tensor for tensor in gradients] if not self._pending else gradients
        going = right(self, [tensor.clone() for tensor in gradients], plan, step, *flags)
        if plan.apply[step]:
            self._pending = [a + b for a, b in zip(known, again, strict=True)]
        return going

    return wrong


def _statistics_with_the_update(right: Any) -> Any:
    def wrong(self: Any, batch: Any, number: int, factor: float, loss_scale: float | None) -> Any:
        total, gradients, moved, terms = right(self, batch, number, factor, loss_scale)
        accumulated = round(1.0 / factor)
        return total, gradients, moved if (number + 1) % accumulated == 0 else [], terms

    return wrong


def _last_batch_alone(right: Any) -> Any:
    """Of the batches that are to be accumulated the last one counts."""

    def wrong(self: Any, gradients: Any, plan: Any, step: int, *flags: Any) -> Any:
        self._pending = []
        return right(self, gradients, plan, step, *flags)

    return wrong


def _slot_forgotten(right: Any) -> Any:
    def wrong(self: Any, slots: Any) -> None:
        right(self, slots)
        for tensor in self._slots.get("variance", {}).values():
            tensor.zero_()

    return wrong


def _stays_in_training(right: Any) -> Any:
    @contextmanager
    def wrong(self: Any, training: bool) -> Any:
        with ExitStack() as stack:
            stack.enter_context(reproducible(self._device))
            if training:
                self.model.train()
            yield

    return wrong


def _one_key_for_all() -> AbstractContextManager[None]:
    """All dropout layers draw the same mask."""
    layer_type = LAYER_TYPES["dropout"]
    make = torch_registry.IMPLEMENTATIONS[layer_type]
    wrong: Any = lambda layer, node, settings: make(layer, replace(node, name="dropout"), settings)  # noqa: E731  # a one-liner
    return entry(torch_registry.IMPLEMENTATIONS, layer_type, wrong)


def _masks_transposed() -> AbstractContextManager[None]:
    """The mask lies over the batch in another order."""
    right = torch_dropout.CounterDropout.forward
    wrong: Any = lambda self, x: right(self, x.T).T if x.ndim == 2 else right(self, x)  # noqa: E731  # a one-liner
    return attribute(torch_dropout.CounterDropout, "forward", wrong)


def _shared_once(right: Any) -> Any:
    """A layer that is used again gets no gradient from there."""

    def wrong(self: Any, inputs: Any, **_: Any) -> Any:
        values = dict(inputs)
        for node in self.graph.nodes:
            module = self.get_submodule(self._paths[node.name])
            arguments = tuple(values[name] for name in node.inputs)
            if node.owner != node.name:
                held = {name: tensor.detach() for name, tensor in module.named_parameters()}
                values[node.name] = torch.func.functional_call(module, held, arguments)
            else:
                values[node.name] = module(*arguments)
        return values

    return wrong


def _untied(right: Any) -> Any:
    """A layer that is used again keeps the weights it began with."""

    def wrong(self: Any, inputs: Any, **_: Any) -> Any:
        if not hasattr(self, "first_weights"):
            self.first_weights = {name: tensor.detach().clone() for name, tensor in self.named_parameters()}
        values = dict(inputs)
        for node in self.graph.nodes:
            path = self._paths[node.name]
            module = self.get_submodule(path)
            arguments = tuple(values[name] for name in node.inputs)
            if node.owner != node.name:
                held = {
                    name: self.first_weights[f"{path}.{name}"] + 0 * tensor
                    for name, tensor in module.named_parameters()
                }
                values[node.name] = torch.func.functional_call(module, held, arguments)
            else:
                values[node.name] = module(*arguments)
        return values

    return wrong


@dataclass(frozen=True)
class TwoOutputs(Fault):
    """A fault of a model with two outputs, whose losses have factors."""

    def subject(self) -> Subject:
        """Return the model and its training."""
        layers: list[Fields] = [
            {"type": "dense", "name": "trunk", "units": 6, "inputs": ["x"]},
            {"type": "dense", "name": "left", "units": 3, "inputs": ["trunk"]},
            {"type": "dense", "name": "right", "units": 2, "inputs": ["trunk"]},
        ]
        given = {"inputs": {"x": {"shape": [6]}}, "layers": layers, "outputs": ["left", "right"]}
        losses = {
            "left": OutputLoss.model_validate({"loss": {"type": "mse"}, "factor": 1.0}),
            "right": OutputLoss.model_validate({"loss": {"type": "mse"}, "factor": 0.25}),
        }
        graph = resolve(ModelSpec.model_validate(given))
        return model_subject(self.name, graph, losses=losses, optimizer=self.optimizer)


def _factors_ignored(rule: TrainingRule) -> TrainingRule:
    return replace(rule, losses={name: (1.0, loss) for name, (_, loss) in rule.losses.items()})


def _mean_of_losses(rule: TrainingRule) -> TrainingRule:
    count = len(rule.losses)
    return replace(rule, losses={name: (factor / count, loss) for name, (factor, loss) in rule.losses.items()})


def _first_loss_only(rule: TrainingRule) -> TrainingRule:
    first = next(iter(rule.losses))
    return replace(
        rule, losses={name: (factor if name == first else 0.0, loss) for name, (factor, loss) in rule.losses.items()}
    )


SHARED: list[Fields] = [
    {"type": "dense", "name": "stem", "units": 6},
    {"type": "tanh", "name": "act"},
    {"type": "shared", "name": "again", "layer": "stem"},
    {"type": "dense", "name": "head", "units": 3},
]
WORDS: list[Fields] = [
    {"type": "embedding", "name": "words", "vocabulary": 9, "width": 4},
    {"type": "flatten", "name": "flat"},
    {"type": "dense", "name": "head", "units": 3},
]


def unchecked(backend: str) -> Plant:
    """The backend does not look at indices before it uses them."""
    module = {"torch": unitrain.backends.torch.program, "keras": unitrain.backends.keras.program}[backend]
    return lambda: attribute(module, "check_indices", lambda graph, inputs: None)


def torch_fault(name: str, row: str, layers: list[Fields], part: str, words: str, plant: Plant, **more: Any) -> Fault:
    """A fault of torch's program."""
    return Fault(name, row, "torch", layers, more.pop("shape", ROW), part, words, plant, **more)


FAULTS = [
    torch_fault(
        "a block trained with its first numbers",
        "schedules",
        row_net(TANH),
        "optimizer",
        "",
        method(TorchProgram, "run_steps", _first_row),
    ),
    Fault(
        "a block trained with its first numbers, in Keras",
        "schedules",
        "keras",
        row_net(TANH),
        ROW,
        "optimizer",
        "",
        method(Training, "run", _first_row),
    ),
    torch_fault(
        "gradients never set to zero",
        "accumulation",
        row_net(TANH),
        "optimizer",
        "",
        method(TorchProgram, "_advance", _gradients_kept),
        optimizer=Sgd(momentum=0.9),
    ),
    torch_fault(
        "the last of the accumulated batches alone",
        "accumulation",
        row_net(TANH),
        "optimizer",
        "",
        method(TorchProgram, "_advance", _last_batch_alone),
        optimizer=Sgd(momentum=0.9),
        accumulate=2,
    ),
    torch_fault(
        "running statistics of the last accumulated batch",
        "batch norm running variance",
        image_net(NORM),
        "norm",
        "",
        method(TorchProgram, "_step", _statistics_with_the_update),
        shape=IMAGE,
        accumulate=2,
    ),
    torch_fault(
        "masks of a block's first step",
        "dropout",
        row_net(DROP),
        "drop",
        "",
        _masks_of_the_first_step,
    ),
    torch_fault(
        "masks one step late",
        "dropout",
        row_net(DROP),
        "drop",
        "",
        method(TorchProgram, "run_steps", _masks_one_step_late),
    ),
    torch_fault(
        "one mask for all dropout layers",
        "dropout",
        row_net(DROP, {"type": "dropout", "name": "drop_again", "rate": 0.2}),
        "drop",
        "",
        _one_key_for_all,
    ),
    torch_fault("masks over the batch transposed", "dropout", row_net(DROP), "drop", "", _masks_transposed),
    torch_fault(
        "never out of training mode",
        "dropout",
        row_net(DROP),
        "drop",
        "drops in inference too",
        method(TorchProgram, "_mode", _stays_in_training),
    ),
    torch_fault(
        "optimizer state lost on loading",
        "optimizer state",
        row_net(TANH),
        "stem",
        "not bit for bit",
        method(TorchProgram, "load_slots", _slot_forgotten),
        optimizer=Adam(),
    ),
    torch_fault(
        "shared layer's second gradient left out",
        "shared weights",
        SHARED,
        "stem",
        "",
        method(GraphModule, "run", _shared_once),
    ),
    torch_fault(
        "shared layer's weights not tied",
        "shared weights",
        SHARED,
        "stem",
        "",
        method(GraphModule, "run", _untied),
    ),
    TwoOutputs(
        "factors of the losses ignored",
        "losses of several outputs",
        "torch",
        (),
        ROW,
        "loss of right",
        "factor 0.25",
        other_rule("torch", _factors_ignored),
    ),
    TwoOutputs(
        "mean of the losses, not their sum",
        "losses of several outputs",
        "torch",
        (),
        ROW,
        "losses together",
        "0.5 times",
        other_rule("torch", _mean_of_losses),
    ),
    TwoOutputs(
        "first loss alone",
        "losses of several outputs",
        "torch",
        (),
        ROW,
        "losses together",
        "zero throughout",
        other_rule("torch", _first_loss_only),
    ),
    Fault(
        "index outside the table, in Keras",
        "embedding index out of range",
        "keras",
        WORDS,
        (5,),
        "words",
        "",
        unchecked("keras"),
        dtype="integer",
    ),
    Fault(
        "index outside the table",
        "embedding index out of range",
        "torch",
        WORDS,
        (5,),
        "words",
        "",
        unchecked("torch"),
        dtype="integer",
    ),
]
