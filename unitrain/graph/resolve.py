"""From a `ModelSpec` to a `Graph`: blocks expanded, arguments worked out, shapes inferred, parameters named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.base import at_document, problems_of
from unitrain.spec.errors import FieldPath, InputError, Problem, unknown_name
from unitrain.spec.expressions import substitute
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.layers.base import LayerSpec, Parameter, Shape, ShapeError, ValueType, Wanted, show_shape
from unitrain.spec.model import (
    BlockCall,
    BlockSpec,
    InputSpec,
    ModelSpec,
    SharedCall,
    Template,
    layer_from_plain,
)
from unitrain.spec.yaml import Document

MAXIMUM_NODES = 20_000
# Of one array: 4 TiB in float32. What is larger is a slip of the finger, and breaks libraries in ugly ways.
MAXIMUM_ELEMENTS = 2**40


def resolve(spec: ModelSpec, arguments: Mapping[str, Any] | None = None, document: Document | None = None) -> Graph:
    """Work out a model.

    Parameters
    ----------
    spec
        The model.
    arguments
        Values for the model's arguments; those left out keep their defaults.
    document
        Where the model was read from, to name file and line in errors.

    Raises
    ------
    InputError
        An argument, name or reference is unknown, names clash, layers form a cycle, or shapes do not fit.
    """
    try:
        return _Resolver(spec, dict(arguments or {})).graph()
    except RecursionError:
        # Each layer that is read before it is listed, and each block within a block, nests the work.
        error = InputError(
            "layers or blocks refer to one another through too many levels",
            field=("layers",),
            hint="list the layers in the order of computation",
        )
    except InputError as found:
        error = found
    raise error if document is None else at_document(error, document) from None


@dataclass(frozen=True)
class _Value:
    """What a name in a scope stands for: one node or input, or a block's several outputs."""

    main: str
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Scope:
    """The layers of the model, or of one use of a block, while they are expanded."""

    layers: Sequence[LayerSpec | Template]
    path: FieldPath
    prefix: str
    owner: str
    arguments: Mapping[str, Any]
    blocks: tuple[str, ...]
    given: dict[str, _Value]
    names: dict[str, int] = field(default_factory=dict)
    done: dict[str, _Value] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    resolved: list[LayerSpec] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)


class _Resolver:
    def __init__(self, spec: ModelSpec, arguments: dict[str, Any]) -> None:
        self.spec = spec
        for name in arguments:
            if name not in spec.arguments:
                raise unknown_name("model argument", name, spec.arguments, ("arguments",))
        self.arguments = {**spec.arguments, **arguments}
        self.inputs: dict[str, InputSpec] = {}
        self.nodes: dict[str, Node] = {}
        self.parameters: dict[str, Parameter] = {}

    def graph(self) -> Graph:
        for name, given in self.spec.inputs.items():
            self.inputs[name] = self._input(given, ("inputs", name))
        scope = _Scope(
            self.spec.layers,
            ("layers",),
            "",
            "",
            self.arguments,
            (),
            {name: _Value(name) for name in self.inputs},
        )
        self._expand(scope)
        outputs = self._outputs(scope, self.spec.outputs, ())
        chosen = {name: value.main for name, value in outputs.items()}
        self._refuse_unused(scope, ("inputs",))
        live = self._reachable(chosen.values())
        nodes = tuple(node for node in self.nodes.values() if node.name in live)
        used = {canonical for node in nodes for canonical in node.parameters.values()}
        parameters = {name: parameter for name, parameter in self.parameters.items() if name in used}
        return Graph(self.spec.name, self.inputs, nodes, chosen, parameters)

    def _input(self, given: InputSpec | Template, path: FieldPath) -> InputSpec:
        if isinstance(given, InputSpec):
            return given
        fields = _prefixed(path, substitute, given.fields, self.arguments)
        try:
            return InputSpec.model_validate(fields)
        except ValidationError as error:
            raise _from_validation(error, fields, path) from None

    def _expand(self, scope: _Scope) -> None:
        """Name every layer of a scope, then compute each after those it reads."""
        counts: dict[str, int] = {}
        for index, layer in enumerate(scope.layers):
            scope.resolved.append(self._layer(layer, (*scope.path, index), scope.arguments))
            kind = scope.resolved[-1].type
            counts[kind] = counts.get(kind, 0) + 1
            name = scope.resolved[-1].name or f"{kind}_{counts[kind]}"
            if name in scope.names or name in scope.given:
                what = "an input" if name in scope.given else f"layer {scope.names[name] + 1} of the list"
                raise InputError(
                    f"the name '{name}' is taken by {what}", field=(*scope.path, index, "name"), found=name
                )
            scope.names[name] = index
            scope.order.append(name)
        for name in scope.names:
            self._compute(scope, name)

    def _layer(self, layer: LayerSpec | Template, path: FieldPath, arguments: Mapping[str, Any]) -> LayerSpec:
        if isinstance(layer, LayerSpec):
            return layer
        fields = _prefixed(path, substitute, layer.fields, arguments)
        try:
            return layer_from_plain(fields)
        except ValidationError as error:
            raise _from_validation(error, fields, path) from None

    def _compute(self, scope: _Scope, name: str) -> _Value:
        if name in scope.done:
            return scope.done[name]
        index = scope.names[name]
        path = (*scope.path, index)
        if name in scope.pending:
            chain = " -> ".join([*scope.pending[scope.pending.index(name) :], name])
            raise InputError(f"the layers form a cycle: {chain}", field=(*path, "inputs"))
        scope.pending.append(name)
        layer = scope.resolved[index]
        values = self._inputs(scope, index, layer)
        scope.done[name] = self._apply(scope, name, layer, values, path)
        scope.pending.pop()
        return scope.done[name]

    def _inputs(self, scope: _Scope, index: int, layer: LayerSpec) -> list[str]:
        """Return the node or input names that a layer reads: its inputs, then its side inputs."""
        path = (*scope.path, index)
        sides = [
            self._reference(scope, name, (*path, field))
            for field, names in layer.side_names().items()
            for name in names
        ]
        if layer.inputs is not None:
            return [self._reference(scope, name, (*path, "inputs")) for name in layer.inputs] + sides
        if index > 0:
            return [self._reference(scope, scope.order[index - 1], path), *sides]
        if len(scope.given) == 1:
            return [self._reference(scope, next(iter(scope.given)), path), *sides]
        raise InputError(
            "the first layer must name its inputs when there are several",
            field=path,
            allowed=", ".join(scope.given),
        )

    def _reference(self, scope: _Scope, name: str, path: FieldPath) -> str:
        # A layer's own name may hold dots; any other dot stands before the name of a block's output.
        base, _, part = (name, "", "") if name in scope.names else name.partition(".")
        if base in scope.given:
            value = scope.given[base]
        elif base in scope.names:
            value = self._compute(scope, base)
        else:
            raise unknown_name("layer or input", name, [*scope.given, *scope.names], path)
        scope.used.add(base)
        if not part:
            return value.main
        if part not in value.parts:
            raise unknown_name(f"output of '{base}'", part, value.parts, path)
        return value.parts[part]

    def _apply(self, scope: _Scope, name: str, layer: LayerSpec, inputs: list[str], path: FieldPath) -> _Value:
        full = _join(scope.prefix, name)
        owner = _join(scope.owner, name)
        if isinstance(layer, SharedCall):
            original, owner = self._shared(scope, layer, path)
            return self._place(scope, full, owner, original, inputs, path)
        return self._place(scope, full, owner, layer, inputs, path)

    def _shared(self, scope: _Scope, layer: SharedCall, path: FieldPath) -> tuple[LayerSpec, str]:
        if layer.layer not in scope.names:
            raise unknown_name("layer", layer.layer, scope.names, (*path, "layer"))
        original = scope.resolved[scope.names[layer.layer]]
        if isinstance(original, SharedCall):
            raise InputError(
                f"'{layer.layer}' is shared itself; name the layer that owns the weights",
                field=(*path, "layer"),
                hint=f"layer: {original.layer}" if original is not layer else None,
            )
        return original, _join(scope.owner, layer.layer)

    def _place(
        self, scope: _Scope, full: str, owner: str, layer: LayerSpec, inputs: list[str], path: FieldPath
    ) -> _Value:
        if isinstance(layer, BlockCall):
            return self._block(scope, full, owner, layer, inputs, path)
        value = self._node(full, owner, layer, inputs, path, self._tied(scope, layer, path))
        activation = getattr(layer, "activation", None)
        if activation is None:
            return _Value(value)
        function = LAYER_TYPES[activation].model_validate({"type": activation})
        return _Value(self._node(f"{full}_activation", f"{owner}_activation", function, [value], path))

    def _block(
        self, scope: _Scope, full: str, owner: str, call: BlockCall, inputs: list[str], path: FieldPath
    ) -> _Value:
        if call.block not in self.spec.blocks:
            raise unknown_name("block", call.block, self.spec.blocks, (*path, "block"))
        if call.block in scope.blocks:
            raise InputError(
                f"block '{call.block}' uses itself: {' -> '.join((*scope.blocks, call.block))}",
                field=(*path, "block"),
            )
        block = self.spec.blocks[call.block]
        if len(inputs) != len(block.inputs):
            raise InputError(
                f"block '{call.block}' takes {len(block.inputs)} inputs and is given {len(inputs)}",
                field=path,
                found=", ".join(inputs),
                allowed=", ".join(block.inputs),
            )
        given = values = [_Value(name) for name in inputs]
        arguments = self._block_arguments(call, block, path)
        if call.repeat == 0:
            return _Value(values[0].main, dict(zip(block.outputs or (), inputs, strict=False)))
        for index in range(call.repeat):
            suffix = f".{index}" if call.repeat > 1 else ""
            inner = _Scope(
                block.layers,
                ("blocks", call.block, "layers"),
                full + suffix,
                owner + suffix,
                {**arguments, "index": index},
                (*scope.blocks, call.block),
                dict(zip(block.inputs, values, strict=True)),
            )
            self._expand(inner)
            outputs = list(self._outputs(inner, block.outputs, ("blocks", call.block)).items())
            self._refuse_unused(inner, ("blocks", call.block, "inputs"))
            values = [value for _, value in outputs]
            if index + 1 < call.repeat and len(values) > len(block.inputs):
                raise InputError(
                    f"block '{call.block}' cannot repeat: it gives {len(values)} outputs and takes "
                    f"{len(block.inputs)} inputs",
                    field=(*path, "repeat"),
                )
            # What a block has no new value for, such as a mask, all repeats are given alike.
            values += given[len(values) :]
        return _Value(values[0].main, {name: value.main for name, value in outputs})

    def _block_arguments(self, call: BlockCall, block: BlockSpec, path: FieldPath) -> dict[str, Any]:
        for name in call.arguments:
            if name not in block.arguments:
                raise unknown_name(
                    f"argument of block '{call.block}'", name, block.arguments, (*path, "arguments", name)
                )
        arguments = {**self.arguments, **block.arguments, **call.arguments}
        for name, value in arguments.items():
            if value is None:
                raise InputError(f"block '{call.block}' needs the argument '{name}'", field=(*path, "arguments"))
        return arguments

    def _tied(self, scope: _Scope, layer: LayerSpec, path: FieldPath) -> dict[str, str]:
        """Return the owners of those of a layer's parameters that are another layer's, by local name."""
        tied = {}
        for local, field_name in layer.ties.items():
            name = getattr(layer, field_name)
            if name is None:
                continue
            if name not in scope.names:
                raise unknown_name("layer", name, scope.names, (*path, field_name))
            # It comes first, so that it is the one that owns the parameter.
            self._compute(scope, name)
            if f"{_join(scope.owner, name)}.{local}" not in self.parameters:
                raise InputError(
                    f"layer '{name}' has no {local}",
                    field=(*path, field_name),
                    found=scope.resolved[scope.names[name]].type,
                )
            tied[local] = _join(scope.owner, name)
        return tied

    def _node(
        self,
        full: str,
        owner: str,
        layer: LayerSpec,
        inputs: list[str],
        path: FieldPath,
        tied: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
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
        dtype = self._dtype(layer, main, path)
        shapes = tuple(self._shape(name) for name in inputs)
        try:
            self._check_sides(full, layer, sides, layer.side_shapes(*shapes[: len(main)]), path)
            output = layer.output_shape(*shapes)
            table = layer.parameters(*shapes)
        except ShapeError as error:
            sources = ", ".join(f"{name} {show_shape(shape)}" for name, shape in zip(inputs, shapes, strict=True))
            raise InputError(f"{layer.type} '{full}' {error}", field=path, found=sources) from None
        for name, shape in [("output", output), *((local, parameter.shape) for local, parameter in table.items())]:
            if prod(shape) > MAXIMUM_ELEMENTS:
                raise InputError(
                    f"the {name} of {layer.type} '{full}' is too large",
                    field=path,
                    found=f"shape {list(shape)}",
                    allowed=f"{MAXIMUM_ELEMENTS:,} elements",
                )
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

    def _dtype(self, layer: LayerSpec, inputs: list[str], path: FieldPath) -> ValueType:
        given = {self._value_type(name) for name in inputs}
        if layer.accepts == "any":
            if len(given) > 1:
                raise InputError(f"{layer.type} cannot join integers and floats", field=(*path, "inputs"))
            return layer.gives or given.pop()
        if given != {layer.accepts}:
            raise InputError(
                f"{layer.type} reads {layer.accepts} values",
                field=(*path, "inputs"),
                found=", ".join(f"{name} ({self._value_type(name)})" for name in inputs),
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
                found = self._shape(name)
                if self._value_type(name) != kind:
                    raise InputError(
                        f"{layer.type} reads {kind} values as {side}",
                        field=where,
                        found=f"{name} ({self._value_type(name)})",
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

    def _shape(self, name: str) -> Shape:
        return self.inputs[name].shape if name in self.inputs else self.nodes[name].output_shape

    def _value_type(self, name: str) -> ValueType:
        return self.inputs[name].dtype if name in self.inputs else self.nodes[name].dtype

    def _outputs(self, scope: _Scope, names: tuple[str, ...] | None, path: FieldPath) -> dict[str, _Value]:
        if names is None:
            names = (scope.order[-1],)
        if len(set(names)) != len(names):
            raise InputError("an output is named twice", field=(*path, "outputs"), found=", ".join(names))
        result = {}
        for name in names:
            if name in scope.given:
                raise InputError(f"the output '{name}' is an input", field=(*path, "outputs"), found=name)
            result[name] = _Value(self._reference(scope, name, (*path, "outputs")))
        return result

    def _reachable(self, outputs: Any) -> set[str]:
        live: set[str] = set()
        stack = list(outputs)
        while stack:
            name = stack.pop()
            if name in live or name in self.inputs:
                continue
            live.add(name)
            stack.extend(self.nodes[name].inputs)
        return live

    def _refuse_unused(self, scope: _Scope, inputs: FieldPath) -> None:
        """Refuse layers and inputs that nothing reads; ``inputs`` is the field that lists the latter."""
        for name in scope.given.keys() - scope.used:
            raise InputError(f"no layer reads the input '{name}'", field=inputs, found=name)
        for index, name in enumerate(scope.order):
            if name not in scope.used:
                raise InputError(
                    f"layer '{name}' feeds no output",
                    field=(*scope.path, index),
                    hint="name it in an `inputs:` or in `outputs:`",
                )


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _prefixed(path: FieldPath, function: Any, *arguments: Any) -> Any:
    """Call a function and put ``path`` before the field of its error."""
    try:
        return function(*arguments)
    except InputError as error:
        problem = error.problems[0]
        raise InputError(
            problem.message,
            field=(*path, *problem.field),
            found=problem.found,
            allowed=problem.allowed,
            hint=problem.hint,
        ) from None


def _from_validation(error: ValidationError, fields: Any, path: FieldPath) -> InputError:
    return InputError.from_problems(
        Problem(
            problem.message,
            field=(*path, *problem.field),
            found=problem.found,
            allowed=problem.allowed,
            hint=problem.hint,
        )
        for problem in problems_of(error, Document("", fields))
    )
