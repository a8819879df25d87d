"""From a `ModelSpec` to a `Graph`: blocks expanded, arguments worked out, shapes inferred, parameters named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unitrain.graph.arguments import input_with, layer_with
from unitrain.graph.graph import Graph
from unitrain.graph.node_table import NodeTable
from unitrain.graph.scope import Scope, Value
from unitrain.spec.base import at_document
from unitrain.spec.errors import FieldPath, InputError, unknown_name
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.layers.base import LayerSpec
from unitrain.spec.model import BlockCall, BlockSpec, ModelSpec, SharedCall
from unitrain.spec.yaml import Document


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


class _Resolver:
    def __init__(self, spec: ModelSpec, arguments: dict[str, Any]) -> None:
        self.spec = spec
        for name in arguments:
            if name not in spec.arguments:
                raise unknown_name("model argument", name, spec.arguments, ("arguments",))
        self.arguments = {**spec.arguments, **arguments}
        self.table = NodeTable(
            {name: input_with(self.arguments, given, ("inputs", name)) for name, given in spec.inputs.items()}
        )

    def graph(self) -> Graph:
        scope = Scope(
            self.spec.layers,
            ("layers",),
            "",
            "",
            self.arguments,
            (),
            {name: Value(name) for name in self.table.inputs},
        )
        self._expand(scope)
        outputs = self._outputs(scope, self.spec.outputs, ())
        chosen = {name: value.main for name, value in outputs.items()}
        scope.refuse_unused(("inputs",))
        nodes = self.table.behind(chosen.values())
        used = {canonical for node in nodes for canonical in node.parameters.values()}
        parameters = {name: parameter for name, parameter in self.table.parameters.items() if name in used}
        return Graph(self.spec.name, self.table.inputs, nodes, chosen, parameters)

    def _expand(self, scope: Scope) -> None:
        """Name every layer of a scope, then compute each after those it reads."""
        counts: dict[str, int] = {}
        for index, layer in enumerate(scope.layers):
            scope.resolved.append(layer_with(scope.arguments, layer, (*scope.path, index)))
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

    def _compute(self, scope: Scope, name: str) -> Value:
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

    def _inputs(self, scope: Scope, index: int, layer: LayerSpec) -> list[str]:
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

    def _reference(self, scope: Scope, name: str, path: FieldPath) -> str:
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

    def _apply(self, scope: Scope, name: str, layer: LayerSpec, inputs: list[str], path: FieldPath) -> Value:
        full = _join(scope.prefix, name)
        owner = _join(scope.owner, name)
        if isinstance(layer, SharedCall):
            original, owner = self._shared(scope, layer, path)
            return self._place(scope, full, owner, original, inputs, path)
        return self._place(scope, full, owner, layer, inputs, path)

    def _shared(self, scope: Scope, layer: SharedCall, path: FieldPath) -> tuple[LayerSpec, str]:
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
        self, scope: Scope, full: str, owner: str, layer: LayerSpec, inputs: list[str], path: FieldPath
    ) -> Value:
        if isinstance(layer, BlockCall):
            return self._block(scope, full, owner, layer, inputs, path)
        value = self.table.add(full, owner, layer, inputs, path, self._tied(scope, layer, path))
        activation = getattr(layer, "activation", None)
        if activation is None:
            return Value(value)
        function = LAYER_TYPES[activation].model_validate({"type": activation})
        return Value(self.table.add(f"{full}_activation", f"{owner}_activation", function, [value], path))

    def _block(self, scope: Scope, full: str, owner: str, call: BlockCall, inputs: list[str], path: FieldPath) -> Value:
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
        given = values = [Value(name) for name in inputs]
        arguments = self._block_arguments(call, block, path)
        if call.repeat == 0:
            return Value(values[0].main, dict(zip(block.outputs or (), inputs, strict=False)))
        for index in range(call.repeat):
            suffix = f".{index}" if call.repeat > 1 else ""
            inner = Scope(
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
            inner.refuse_unused(("blocks", call.block, "inputs"))
            values = [value for _, value in outputs]
            if index + 1 < call.repeat and len(values) > len(block.inputs):
                raise InputError(
                    f"block '{call.block}' cannot repeat: it gives {len(values)} outputs and takes "
                    f"{len(block.inputs)} inputs",
                    field=(*path, "repeat"),
                )
            # What a block has no new value for, such as a mask, all repeats are given alike.
            values += given[len(values) :]
        return Value(values[0].main, {name: value.main for name, value in outputs})

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

    def _tied(self, scope: Scope, layer: LayerSpec, path: FieldPath) -> dict[str, str]:
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
            if f"{_join(scope.owner, name)}.{local}" not in self.table.parameters:
                raise InputError(
                    f"layer '{name}' has no {local}",
                    field=(*path, field_name),
                    found=scope.resolved[scope.names[name]].type,
                )
            tied[local] = _join(scope.owner, name)
        return tied

    def _outputs(self, scope: Scope, names: tuple[str, ...] | None, path: FieldPath) -> dict[str, Value]:
        if names is None:
            names = (scope.order[-1],)
        if len(set(names)) != len(names):
            raise InputError("an output is named twice", field=(*path, "outputs"), found=", ".join(names))
        result = {}
        for name in names:
            if name in scope.given:
                raise InputError(f"the output '{name}' is an input", field=(*path, "outputs"), found=name)
            result[name] = Value(self._reference(scope, name, (*path, "outputs")))
        return result


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
