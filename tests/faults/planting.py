"""How faults are planted: the real code of one backend is changed for a while, as a careless port would have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

import unitrain.backends.keras.model
import unitrain.backends.numpy.model
import unitrain.backends.torch.module  # noqa: F401  # imported for what they register
from unitrain.backends import load_backend
from unitrain.backends.contract import Arrays, Settings
from unitrain.backends.keras import registry as keras_registry
from unitrain.backends.numpy import registry as numpy_registry
from unitrain.backends.rule import TrainingRule
from unitrain.backends.torch import registry as torch_registry
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam, Optimizer
from unitrain.spec.recipe import OutputLoss
from unitrain.train.update import Update
from unitrain.verify.experiments.steps import GivenGradient
from unitrain.verify.subject import Subject, model_subject

Fields = dict[str, Any]
Plant = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Parameters
    ----------
    name
        What is wrong.
    row
        The row of the semantics that it breaks.
    backend
        Into which it is planted.
    layers, shape
        The model, whose input ``x`` has the shape.
    part
        What `verify` must name.
    words
        What its diagnosis must say; nothing where the row has no rule.
    plant
        Changes the backend.
    optimizer, loss, accumulate
        How the model is trained.
    dtype
        ``integer`` for an input of indices.
    weighted
        Whether the samples have weights.
    """

    name: str
    row: str
    backend: str
    layers: Sequence[Fields]
    shape: Sequence[int]
    part: str
    words: str
    plant: Plant
    optimizer: Optimizer = field(default_factory=Adam)
    loss: Fields | None = None
    accumulate: int = 1
    dtype: str = "float"
    weighted: bool = False
    precision: Any = "float32"

    def subject(self) -> Subject:
        """Return the model and its training."""
        given = {"shape": list(self.shape), "dtype": self.dtype}
        graph = resolve(ModelSpec.model_validate({"inputs": {"x": given}, "layers": list(self.layers)}))
        losses = None
        if self.loss is not None:
            losses = {output: OutputLoss.model_validate({"loss": self.loss}) for output in graph.outputs}
        subject = model_subject(self.name, graph, losses=losses, optimizer=self.optimizer, accumulate=self.accumulate)
        if self.weighted:
            weight = 0.5 + abs(next(iter(subject.data.inputs.values())).reshape(len(subject.data), -1)[:, 0])
            subject = replace(subject, data=replace(subject.data, weight=weight.astype("float32")))
        return subject


@contextmanager
def entry(table: dict[Any, Any], key: Any, value: Any) -> Iterator[None]:
    """Replace one entry of a registry for a while."""
    before = table[key]
    table[key] = value
    try:
        yield
    finally:
        table[key] = before


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def other_fields(backend: str, kind: str, name: str = "", **fields: Any) -> Plant:
    """The backend builds the layers of a kind, or the one called ``name``, with other fields than the spec's."""
    layer_type = LAYER_TYPES[kind]

    def changed(layer: Any) -> Any:
        if name and layer.name != name:
            return layer
        return layer_type.model_validate({**{k: getattr(layer, k) for k in layer.model_fields_set}, **fields})

    def plant() -> AbstractContextManager[None]:
        if backend == "torch":
            table: Any = torch_registry.IMPLEMENTATIONS
            make = table[layer_type]
            wrong: Any = lambda layer, node, settings: make(changed(layer), node, settings)  # noqa: E731  # a one-liner
        elif backend == "keras":
            table = keras_registry.IMPLEMENTATIONS
            build = table[layer_type]
            wrong = lambda layer, context, *x: build(changed(layer), context, *x)  # noqa: E731  # a one-liner
        else:
            table = numpy_registry.IMPLEMENTATIONS
            compute = table[layer_type]
            wrong = lambda layer, context, parameters, *x: compute(changed(layer), context, parameters, *x)  # noqa: E731  # a one-liner
        return entry(table, layer_type, wrong)

    return plant


class Port(torch.nn.Module):
    """A module of torch's column, called otherwise."""

    def __init__(self, inner: torch.nn.Module, call: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.inner = inner
        self.call = call

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Compute what the port computes."""
        return self.call(self.inner, *inputs)


def torch_port(kind: str, call: Callable[..., Any]) -> Plant:
    """torch computes ``call(layer, module, *inputs)`` for a layer, where ``module`` is the right one."""
    layer_type = LAYER_TYPES[kind]

    def plant() -> AbstractContextManager[None]:
        make = torch_registry.IMPLEMENTATIONS[layer_type]

        def wrong(layer: Any, node: Any, settings: Settings) -> torch_registry.Made:
            made = make(layer, node, settings)
            slots = {name: replace(slot, attribute=f"inner.{slot.attribute}") for name, slot in made.slots.items()}
            return torch_registry.Made(Port(made.module, lambda inner, *x: call(layer, inner, *x)), slots)

        return entry(torch_registry.IMPLEMENTATIONS, layer_type, wrong)

    return plant


def keras_port(kind: str, call: Callable[..., Any]) -> Plant:
    """Keras builds ``call(build, layer, context, *inputs)`` for a layer, where ``build`` is the right builder."""
    layer_type = LAYER_TYPES[kind]

    def plant() -> AbstractContextManager[None]:
        build = keras_registry.IMPLEMENTATIONS[layer_type]
        wrong: Any = lambda layer, context, *x: call(build, layer, context, *x)  # noqa: E731  # a one-liner
        return entry(keras_registry.IMPLEMENTATIONS, layer_type, wrong)

    return plant


def numpy_port(kind: str, call: Callable[..., Any]) -> Plant:
    """NumPy computes ``call(forward, layer, context, parameters, *inputs)``, where ``forward`` is the right one."""
    layer_type = LAYER_TYPES[kind]

    def plant() -> AbstractContextManager[None]:
        forward = numpy_registry.IMPLEMENTATIONS[layer_type]
        wrong: Any = lambda layer, context, parameters, *x: call(forward, layer, context, parameters, *x)  # noqa: E731  # a one-liner
        return entry(numpy_registry.IMPLEMENTATIONS, layer_type, wrong)

    return plant


def other_rule(backend: str, change: Callable[[TrainingRule], TrainingRule]) -> Plant:
    """The backend trains by another rule than it was given; what the verification probes beside stays as it is."""

    def plant() -> AbstractContextManager[None]:
        kind = type(load_backend(backend))
        compile_right = kind.compile

        def compile_wrong(
            self: Any, graph: Graph, weights: Arrays, settings: Settings, rule: TrainingRule | None = None
        ) -> Any:
            return compile_right(self, graph, weights, settings, None if rule is None else change(rule))

        return attribute(kind, "compile", compile_wrong)

    return plant


def other_updater(backend: str, optimizer: Optimizer, make: Callable[[Update], Any]) -> Plant:
    """The backend updates by ``make(update)`` wherever it is to update by ``optimizer``."""

    def change(rule: TrainingRule) -> TrainingRule:
        update = rule.updater
        right = isinstance(update, Update) and update.spec == optimizer
        return replace(rule, updater=make(update)) if right else rule  # type: ignore[arg-type]  # tested above

    return other_rule(backend, change)


def other_loss(backend: str, make: Callable[[Any], Any]) -> Plant:
    """The backend trains with ``make(loss)`` for every loss but the probes' own."""

    def change(rule: TrainingRule) -> TrainingRule:
        losses: Mapping[str, Any] = {
            name: (factor, loss if isinstance(loss, GivenGradient) else make(loss))
            for name, (factor, loss) in rule.losses.items()
        }
        return replace(rule, losses=losses)

    return other_rule(backend, change)
