"""Collects the operators of an ONNX graph: names, constants, and the layout that each value is in.

A value of the spec has its channel last, and ONNX's image operators want it first. Each `Value` therefore knows in
which layouts it is at hand, and is transposed when a layer asks for another, once for all who ask. Layers that can
work in either take the value as it is, so that from one convolution to the next nothing is moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from unitrain.backends.contract import Arrays, Precision
from unitrain.graph.node import Node
from unitrain.spec.layers.base import Shape

Array = npt.NDArray[Any]
# ``[batch, ..., channel]`` as in the spec, or ``[batch, channel, ...]`` as ONNX's image operators have it.
Layout = Literal["channels_last", "channels_first"]


@dataclass
class Value:
    """The result of a node or an input of the graph.

    Parameters
    ----------
    shape
        In the spec's layout, batch left out.
    forms
        Name of the tensor that holds it, for each layout it is at hand in; the first is the one it was computed in.
        With fewer than two axes behind the batch there is nothing to order, and ``channels_last`` stands for both.
    """

    shape: Shape
    forms: dict[Layout, str]

    @property
    def layout(self) -> Layout:
        """The layout that it was computed in."""
        return next(iter(self.forms))

    @property
    def rank(self) -> int:
        """Number of axes, batch included."""
        return len(self.shape) + 1

    def axis(self, axis: int, layout: Layout) -> int:
        """Return where an axis of the spec's layout, batch included, stands in ``layout``."""
        return axis_in(axis % self.rank, self.rank, layout)


def axis_in(axis: int, rank: int, layout: Layout) -> int:
    """Return where axis ``axis`` of a channel-last tensor, batch counted, stands in ``layout``."""
    if layout == "channels_last" or axis == 0:
        return axis
    return 1 if axis == rank - 1 else axis + 1


@dataclass
class Operator:
    """One operator before it is written: names may still change. ``others`` are outputs behind the first."""

    kind: str
    name: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def to_proto(self) -> NodeProto:
        """Write it down."""
        return helper.make_node(self.kind, self.inputs, [self.output, *self.others], name=self.name, **self.attributes)


class Emitter:
    """The graph that is being written.

    Parameters
    ----------
    weights
        All parameters, canonical, in the working precision.
    opset
        Which version of ONNX's operators to choose from.
    precision
        Type of all floats.
    reserved
        Names of tensors and operators that are spoken for.
    """

    def __init__(self, weights: Arrays, opset: int, precision: Precision, reserved: Iterable[str]) -> None:
        self.weights = weights
        self.opset = opset
        self.dtype = np.dtype(precision)
        self.operators: list[Operator] = []
        self.initializers: dict[str, Array] = {}
        self._names = set(reserved)
        self._constants: dict[tuple[str, Shape, bytes], str] = {}

    @property
    def double(self) -> bool:
        """Whether floats are float64, for which onnxruntime lacks many an operator."""
        return self.dtype == np.float64

    def unique(self, name: str) -> str:
        """Return ``name``, with a number behind it if it is taken, and reserve it."""
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found

    def add(self, kind: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add an operator and return its output, which has its name."""
        name = self.unique(name)
        self.operators.append(Operator(kind, name, list(inputs), name, attributes))
        return name

    def constant(self, array: Array) -> str:
        """Hold an array that is no parameter; equal ones are held once."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.unique(f"constant.{len(self._constants)}")
            self.initializers[self._constants[key]] = array
        return self._constants[key]

    def parameter(self, canonical: str, array: Array) -> str:
        """Hold a parameter in an operator's layout, under its canonical name.

        A shared layer's nodes hold it once, unless they need it in several layouts: then a number tells these apart.
        """
        name, number = canonical, 1
        while name in self.initializers and not np.array_equal(self.initializers[name], array, equal_nan=True):
            number += 1
            name = f"{canonical}_{number}"
        self._names.add(name)
        self.initializers[name] = np.ascontiguousarray(array)
        return name

    def brought(self, value: Value, layout: Layout) -> str:
        """Return a value's tensor in a layout, transposing it if it was not asked for before."""
        if value.rank < 3:
            return next(iter(value.forms.values()))
        if layout not in value.forms:
            last = value.rank - 1
            order = [0, last, *range(1, last)] if layout == "channels_first" else [0, *range(2, last + 1), 1]
            source = value.forms[value.layout]
            value.forms[layout] = self.add("Transpose", f"{source}.{layout}", [source], perm=order)
        return value.forms[layout]

    def rename(self, names: dict[str, str], start: int = 0) -> None:
        """Give tensors other names, in all operators from number ``start`` on."""
        for operator in self.operators[start:]:
            operator.inputs = [names.get(name, name) for name in operator.inputs]
            operator.output = names.get(operator.output, operator.output)
            operator.others = [names.get(name, name) for name in operator.others]

    def protos(self) -> tuple[list[NodeProto], list[TensorProto]]:
        """Write down the operators, and the initializers that they read."""
        read = {name for operator in self.operators for name in operator.inputs}
        tensors = [numpy_helper.from_array(array, name) for name, array in self.initializers.items() if name in read]
        return [operator.to_proto() for operator in self.operators], tensors


class LayerEmitter:
    """What the emission of one layer is given: the graph, seen from one node.

    The operator whose output is the layer's gets the node's name, those on the way ``<node>.<operator>``.
    """

    def __init__(self, emitter: Emitter, node: Node) -> None:
        self.graph = emitter
        self.node = node
        self.opset = emitter.opset
        self.double = emitter.double
        self.dtype = emitter.dtype

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator and return its output; an optional input that is left out is an empty name."""
        return self.graph.add(kind, f"{self.node.name}.{kind.lower()}", inputs, **attributes)

    def ops(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add an operator and return its first ``count`` outputs."""
        first = self.op(kind, *inputs, **attributes)
        others = [self.graph.unique(f"{first}.{number}") for number in range(1, count)]
        self.graph.operators[-1].others = others
        return [first, *others]

    def number(self, value: float) -> str:
        """Hold a number in the working precision."""
        return self.graph.constant(np.array(value, dtype=self.dtype))

    def floats(self, array: Array) -> str:
        """Hold an array in the working precision."""
        return self.graph.constant(np.ascontiguousarray(array, dtype=self.dtype))

    def integers(self, values: Any) -> str:
        """Hold axes, a shape or indices."""
        return self.graph.constant(np.array(values, dtype=np.int64))

    def has(self, local: str) -> bool:
        """Whether the layer has a parameter of that local name."""
        return local in self.node.parameters

    def weight(self, local: str) -> Array:
        """Return a parameter in its canonical layout."""
        return self.graph.weights[self.node.parameters[local]]

    def parameter(self, local: str, array: Array | None = None) -> str:
        """Hold a parameter under its canonical name: as it is, or in the layout of ``array``."""
        return self.graph.parameter(self.node.parameters[local], self.weight(local) if array is None else array)

    def optional(self, *locals_: str) -> list[str]:
        """Hold those parameters that the layer has, as they are."""
        return [self.parameter(local) for local in locals_ if self.has(local)]

    def first(self, value: Value) -> str:
        """Return a value as ``[batch, channel, ...]``."""
        return self.graph.brought(value, "channels_first")

    def last(self, value: Value) -> str:
        """Return a value as ``[batch, ..., channel]``."""
        return self.graph.brought(value, "channels_last")

    def same_layout(self, values: Sequence[Value]) -> tuple[list[str], Layout]:
        """Bring values of one rank into the layout that most of them are in; return the tensors and the layout."""
        layouts: list[Layout] = [values[0].layout, "channels_first", "channels_last"]
        chosen = max(layouts, key=lambda layout: sum(layout in value.forms for value in values))
        return [self.graph.brought(value, chosen) for value in values], chosen

    def in_order(self, value: Value) -> str:
        """Return a tensor whose elements lie in the spec's order, whatever its shape."""
        moves = value.shape[-1:] != (1,) and int(np.prod(value.shape[:-1])) != 1
        return self.last(value) if moves else value.forms[value.layout]

    def reduced(self, kind: str, tensor: str, axes: Sequence[int], *, keep: bool) -> str:
        """Reduce over ``axes``, which became an input of the operators in opset 18 (of ``ReduceSum`` in 13)."""
        if self.opset < 18 and kind != "ReduceSum":
            return self.op(kind, tensor, axes=list(axes), keepdims=int(keep))
        return self.op(kind, tensor, self.integers(axes), keepdims=int(keep))

    def reshaped(self, tensor: str, shape: Sequence[int]) -> str:
        """Give each sample's elements another shape; the batch stays what it is."""
        return self.op("Reshape", tensor, self.integers([0, *shape]))

    def value(self, tensor: str, layout: Layout = "channels_last") -> Value:
        """Return the layer's result."""
        shape = self.node.output_shape
        return Value(shape, {layout if len(shape) > 1 else "channels_last": tensor})
