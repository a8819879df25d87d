"""The nodes of a graph while it is resolved: shapes are inferred, and parameters named, as each is added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from types import MappingProxyType

from unitrain.graph.node import Node
from unitrain.spec.errors import FieldPath, InputError
from unitrain.spec.layers.base import LayerSpec, Parameter, Shape, ShapeError, ValueType, Wanted, show_shape
from unitrain.spec.model import InputSpec

MAXIMUM_NODES = 20_000
# Of one array: 4 TiB in float32. What is larger is a slip of the finger, and breaks libraries in ugly ways.
MAXIMUM_ELEMENTS = 2**40


class NodeTable:
    """Inputs, nodes in topological order, and parameters by canonical name."""

    def __init__(self, inputs: Mapping[str, InputSpec]) -> None:
        self.inputs = inputs
        self.nodes: dict[str, Node] = {}
        self.parameters: dict[str, Parameter] = {}

    def add(
        self,
        full: str,
        owner: str,
        layer: LayerSpec,
        inputs: list[str],
        path: FieldPath,
        tied: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Add a layer's node and return its name.

        Parameters
        ----------
        full, owner
            Full names of the node and of the layer whose weights it uses.
        layer, inputs
            The layer, and the names of what it reads: its inputs, then its side inputs.
        path
            The layer's field, for errors.
        tied
            Owners of those parameters that are another layer's, by local name.

        Raises
        ------
        InputError
            The name is taken, the graph is too large, or number, type or shape of an input does not fit the layer.
        """
        if full in self.nodes or full in self.inputs:
            raise InputError(f"the name '{full}' is taken", field=path, found=full)
        if len(self.nodes) >= MAXIMUM_NODES:
            raise InputError("the model has too many layers", field=path, allowed=f"{MAXIMUM_NODES:,}")
        least, most = layer.arity
        sides = layer.sides(inputs)
        main = inputs[: len(inputs) - sum(map(len, sides.values()))]
        if len(main) < least or (most is not None and len(main) > most):
            wanted = f"{least} or more inputs" if most is None else f"{least} input" + "s" * (least > 1)
            raise InputError(f"{layer.type} takes {wanted}", field=(*path, "inputs"), found=", ".join(main) or "none")
        dtype = self._result_type(layer, main, path)
        shapes = tuple(self.shape(name) for name in inputs)
        try:
            self._check_sides(full, layer, sides, layer.side_shapes(*shapes[: len(main)]), path)
            output = layer.output_shape(*shapes)
            table = layer.parameters(*shapes)
        except ShapeError as error:
            sources = ", ".join(f"{name} {show_shape(shape)}" for name, shape in zip(inputs, shapes, strict=True))
            raise InputError(f"{layer.type} '{full}' {error}", field=path, found=sources) from None
        _refuse_giants(full, layer, {"output": output} | {local: table[local].shape for local in table}, path)
        canonical = {local: f"{tied.get(local, owner)}.{local}" for local in table}
        for local, parameter in table.items():
            known = self.parameters.setdefault(canonical[local], parameter)
            if known.shape != parameter.shape:
                raise InputError(
                    f"'{full}' shares {canonical[local]} {list(known.shape)}, but its input needs "
                    f"{list(parameter.shape)}",
                    field=path,
                )
        self.nodes[full] = Node(full, layer, tuple(inputs), shapes, output, dtype, canonical)
        return full

    def _result_type(self, layer: LayerSpec, inputs: list[str], path: FieldPath) -> ValueType:
        given = {self.value_type(name) for name in inputs}
        if layer.accepts == "any":
            if len(given) > 1:
                raise InputError(f"{layer.type} cannot join integers and floats", field=(*path, "inputs"))
            return layer.gives or given.pop()
        if given != {layer.accepts}:
            raise InputError(
                f"{layer.type} reads {layer.accepts} values",
                field=(*path, "inputs"),
                found=", ".join(f"{name} ({self.value_type(name)})" for name in inputs),
                hint="an embedding turns integers into floats" if layer.accepts == "float" else None,
            )
        return layer.gives or "float"

    def _check_sides(
        self,
        full: str,
        layer: LayerSpec,
        sides: Mapping[str, Sequence[str]],
        wanted: Mapping[str, Sequence[Wanted]],
        path: FieldPath,
    ) -> None:
        """See that side inputs are as many, of the kind and of the shape that the layer wants."""
        for side, names in sides.items():
            where = (*path, side)
            kind, shapes = layer.side_inputs[side], wanted[side]
            if len(names) != len(shapes):
                raise InputError(
                    f"{layer.type} '{full}' takes {len(shapes)} for {side}", field=where, found=", ".join(names)
                )
            for name, shape in zip(names, shapes, strict=True):
                found = self.shape(name)
                if self.value_type(name) != kind:
                    raise InputError(
                        f"{layer.type} reads {kind} values as {side}",
                        field=where,
                        found=f"{name} ({self.value_type(name)})",
                    )
                if len(found) != len(shape) or any(
                    want not in (None, extent) for want, extent in zip(shape, found, strict=True)
                ):
                    raise InputError(
                        f"{layer.type} '{full}' has a {side} of another shape",
                        field=where,
                        found=f"{name} {show_shape(found)}",
                        allowed=show_shape(shape),
                    )

    def shape(self, name: str) -> Shape:
        """Return the shape, without batch, of a node's output or of an input."""
        return self.inputs[name].shape if name in self.inputs else self.nodes[name].output_shape

    def value_type(self, name: str) -> ValueType:
        """Return the kind of a node's output or of an input."""
        return self.inputs[name].dtype if name in self.inputs else self.nodes[name].dtype

    def behind(self, outputs: Iterable[str]) -> tuple[Node, ...]:
        """Return the nodes that some outputs need, in order."""
        live: set[str] = set()
        stack = list(outputs)
        while stack:
            name = stack.pop()
            if name in live or name in self.inputs:
                continue
            live.add(name)
            stack.extend(self.nodes[name].inputs)
        return tuple(node for node in self.nodes.values() if node.name in live)


def _refuse_giants(full: str, layer: LayerSpec, shapes: Mapping[str, Shape], path: FieldPath) -> None:
    for name, shape in shapes.items():
        if prod(shape) > MAXIMUM_ELEMENTS:
            raise InputError(
                f"the {name} of {layer.type} '{full}' is too large",
                field=path,
                found=f"shape {list(shape)}",
                allowed=f"{MAXIMUM_ELEMENTS:,} elements",
            )
