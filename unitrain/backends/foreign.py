"""A model that a user wrote in a framework, taken apart: one small protocol for torch, Keras and ONNX.

A forward pass is recorded as a `Trace`: the operations one after another, what each reads and gives, and which
parameters it uses. Any section of it can be run by itself, on other numbers: the whole model from its inputs to its
outputs, or one layer from the tensor before it to the tensor behind it. Arrays have the user's own names and layouts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Role = Literal[
    "kernel",
    "bias",
    "scale",
    "running_mean",
    "running_variance",
    "table",
    "slope",
    "depthwise_kernel",
    "pointwise_kernel",
    "",
]


@dataclass(frozen=True)
class ForeignParameter:
    """One array of the user's model.

    Parameters
    ----------
    name
        As the framework has it: ``features.0.weight``, ``conv1/kernel``.
    shape
        In the framework's layout.
    owner
        The module, layer or operator it belongs to.
    kind
        What the owner is: ``Conv2d``, ``BatchNormalization``, ``Gemm``.
    role
        What it is to its owner, in the spec's words; nothing where that cannot be told.
    axes
        What its axes are, a letter each: ``o`` out, ``i`` in, ``c`` channel, ``m`` multiplier, ``h`` and ``w`` the
        window, ``v`` vocabulary, ``d`` width; nothing where that cannot be told.
    trainable
        False for running statistics.
    blocks
        Of a recurrent layer: what stands side by side in it, in equal parts along all axes but ``i``, each the spec's
        name and a gate of `GATES`: ``("kernel.i", "kernel.o", "kernel.f", "kernel.g")``. What stands there twice is
        added up.
    frozen
        What could be trained is not: ``requires_grad = False``, ``trainable = False``.
    """

    name: str
    shape: tuple[int, ...]
    owner: str
    kind: str
    role: Role
    axes: str
    trainable: bool = True
    blocks: tuple[str, ...] = ()
    frozen: bool = False


# The gates of recurrent layers in the spec's order of columns.
GATES = {"lstm": "ifgo", "gru": "zrn", "simple_rnn": "h"}


def blocks(local: str, gates: str) -> tuple[str, ...]:
    """Return what stands in an array: ``blocks("kernel", "io")`` is ``("kernel.i", "kernel.o")``."""
    return tuple(f"{local}.{gate}" for gate in gates)


def second_bias(gates: str, prefix: str = "") -> tuple[str, ...]:
    """Return what stands in the bias of a product with the state, where there is another one for that with the input.

    The two are added up; of a GRU's candidate alone they are not.
    """
    return tuple(f"{prefix}{'recurrent_bias' if gate == 'n' else 'bias'}.{gate}" for gate in gates)


@dataclass(frozen=True)
class Operation:
    """One step of a forward pass.

    Parameters
    ----------
    name
        What it computes, in the framework's words: ``max_pool2d``, ``Relu``.
    owner
        The module or layer that computes it.
    inputs, outputs
        Numbers of the tensors it reads and gives.
    parameters
        Names of the parameters it reads.
    """

    name: str
    owner: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trace:
    """A recorded forward pass for a batch of one size.

    Parameters
    ----------
    operations
        In the order of computation.
    shapes
        Of all tensors, by number, with the batch.
    inputs
        Numbers of the model's inputs, in order.
    outputs
        Name to number of the model's outputs, in order; ``output``, ``output_2`` where they have no names.
    training
        In which mode it was recorded.
    drops
        Rates of the dropouts met, in order. In a trace nothing is dropped, in either mode.
    draws
        Whether there is other chance in it, so that two runs differ.
    recorded
        What the framework needs to run it again.
    """

    operations: tuple[Operation, ...]
    shapes: Mapping[int, tuple[int, ...]]
    inputs: tuple[int, ...]
    outputs: Mapping[str, int]
    training: bool
    drops: tuple[float, ...] = ()
    draws: bool = False
    recorded: Any = field(default=None, repr=False)

    def section(self, feeds: Collection[int], fetches: Collection[int]) -> tuple[list[int], set[int]]:
        """Return which operations lead from ``feeds`` to ``fetches``, in order, and which feeds are missing.

        What is missing are inputs of the model that are needed and not fed.
        """
        needed = set(fetches) - set(feeds)
        chosen = []
        for number in range(len(self.operations) - 1, -1, -1):
            operation = self.operations[number]
            if needed.isdisjoint(operation.outputs):
                continue
            chosen.append(number)
            needed -= set(operation.outputs)
            needed |= set(operation.inputs) - set(feeds)
        return chosen[::-1], needed


@dataclass(frozen=True)
class Ran:
    """What a section of a trace gave.

    Parameters
    ----------
    values
        By number.
    by_feed
        Gradients by the tensors fed, those of kind float.
    by_parameter
        Gradients by the trainable parameters that the section uses.
    statistics
        New values of running statistics that the section moves; the model's own stay as they are.
    """

    values: Mapping[int, Array]
    by_feed: Mapping[int, Array] = field(default_factory=dict)
    by_parameter: Mapping[str, Array] = field(default_factory=dict)
    statistics: Mapping[str, Array] = field(default_factory=dict)


class Foreign(Protocol):
    """A user's model. Each ``backends/<name>/foreign.py`` offers ``wrap(model) -> Foreign``."""

    label: str
    """``torch model``, ``keras model``, ``onnx model``."""
    backend: str
    """The backend whose packages it needs."""
    trains: bool
    """Whether it can be differentiated and run in training mode."""
    channels_first: bool | None
    """The usual layout of images in the framework; None where both are usual."""
    input_names: tuple[str, ...]
    """Names of what it reads, in order; none where that is not known before a call."""

    def arrays(self) -> dict[str, Array]:
        """Copy out all parameters of kind float, running statistics included; those of any name and layout."""
        ...

    def record(self, inputs: Mapping[str, Array] | Sequence[Array], *, training: bool) -> Trace:
        """Record a forward pass on one batch, inputs by name or in order. The model stays as it is.

        Raises
        ------
        Exception
            Whatever the model raises on such inputs.
        """
        ...

    def parameters(self, trace: Trace) -> tuple[ForeignParameter, ...]:
        """Describe the parameters: those that a trace uses, in the order of use, then the others."""
        ...

    def run(
        self,
        trace: Trace,
        feeds: Mapping[int, Array],
        fetches: Sequence[int],
        upstream: Mapping[int, Array] | None = None,
    ) -> Ran:
        """Run a section of a trace on other numbers.

        Parameters
        ----------
        feeds
            Tensors that are given, by number, with the batch size of the trace.
        fetches
            Tensors that are wanted.
        upstream
            Gradients by tensors among ``fetches``: with them the section is differentiated.
        """
        ...


def in_order_of_use(trace: Trace, parameters: Sequence[ForeignParameter]) -> tuple[ForeignParameter, ...]:
    """Sort parameters by the first operation that reads them or another one of their owner; unused ones come last."""
    first: dict[str, int] = {}
    for number, operation in enumerate(trace.operations):
        for name in operation.parameters:
            first.setdefault(name, number)
    never = len(trace.operations)
    owners: dict[str, int] = {}
    for parameter in parameters:
        used = first.get(parameter.name, never)
        owners[parameter.owner] = min(owners.get(parameter.owner, never), used)
    return tuple(sorted(parameters, key=lambda item: (item.name not in first, owners[item.owner])))


def output_names(count: int) -> list[str]:
    """Name outputs that have no names."""
    return ["output", *(f"output_{number}" for number in range(2, count + 1))][:count]


def float32(name: str, array: Array) -> Array:
    """Return an array that is float32. Raises `ValueError` with the name of one that is not."""
    if array.dtype != np.float32:
        raise ValueError(f"'{name}' is {array.dtype}; only float32 models are compared")
    return array
