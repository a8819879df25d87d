"""The user's weight map, in YAML: which parameters belong together, read and written."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy.typing as npt

from unitrain.backends.foreign import ForeignParameter
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.errors import InputError, Problem, did_you_mean
from unitrain.spec.layers.recurrent import RecurrentLayer
from unitrain.spec.yaml import Document, read_yaml, write_yaml
from unitrain.verify.against.bindings import Binding, Bindings, owners_of
from unitrain.verify.against.layouts import Conversion, conversions, our_axes
from unitrain.verify.against.matching import recurrent_bindings
from unitrain.verify.against.recurrent import Blocks

Array = npt.NDArray[Any]


def read_map(path: str | Path) -> Document:
    """Read a weight map. Raises `InputError`."""
    return read_yaml(path)


def write_map(path: str | Path, bindings: Bindings, missing: Sequence[str] = ()) -> None:
    """Write a weight map: what was found, and nothing behind the names for which nothing was."""
    entries: dict[str, Any] = {}
    for name, binding in bindings.items():
        conversion, shape = binding.conversion, binding.theirs.shape
        if isinstance(conversion, Blocks):  # which are found again by what stands in theirs
            entries[name] = binding.theirs.name
            continue
        plain = conversion.split == shape and not conversion.repeated
        order = list(conversion.transpose) + [axis for axis in range(len(shape)) if axis not in conversion.transpose]
        turned = plain and order != list(range(len(shape)))
        entries[name] = {"name": binding.theirs.name, "transpose": order} if turned else binding.theirs.name
    entries |= dict.fromkeys(missing)
    text = "# The spec's parameters and the model's that they are.\n" + write_yaml(entries)
    Path(path).write_text(text, encoding="utf-8")


def stated(graph: Graph, theirs: Sequence[ForeignParameter], given: Document) -> Bindings:
    """Return what a map states. Raises `InputError` with the line of each entry that names or fits nothing."""
    if not isinstance(given.data, dict):
        raise InputError("a weight map is canonical names with the model's names", file=given.file)
    names = {parameter.name: parameter for parameter in theirs}
    owners = {canonical: (owner, local) for owner in owners_of(graph) for local, canonical in owner.parameters.items()}
    found: Bindings = {}
    problems: list[Problem] = []

    def wrong(field: str, message: str, **parts: Any) -> None:
        problems.append(Problem(message, given.file, given.line((field,)), (field,), **parts))

    for ours, value in given.data.items():
        if value is None:
            continue
        stated = {"name": value} if isinstance(value, str) else value
        if ours not in graph.parameters:
            wrong(ours, "the spec has no such parameter", hint=did_you_mean(ours, graph.parameters))
            continue
        if (
            not isinstance(stated, dict)
            or not isinstance(stated.get("name"), str)
            or stated.keys() - {"name", "transpose"}
        ):
            wrong(ours, "must be a name, or {name: ..., transpose: [...]}", found=str(value))
            continue
        parameter = names.get(stated["name"])
        if parameter is None:
            hint = did_you_mean(stated["name"], names)
            wrong(ours, "the model has no such parameter", found=stated["name"], hint=hint)
            continue
        owner, local = owners[ours]
        if parameter.blocks and isinstance(owner.node.layer, RecurrentLayer):
            group = [item for item in theirs if item.owner == parameter.owner]
            binding = (recurrent_bindings(graph, owner, [group, group]) or {}).get(ours)
            if binding is None:
                shown = f"{parameter.name} {list(parameter.shape)}"
                wrong(ours, "the shapes do not fit", found=shown, allowed=str(list(graph.parameters[ours].shape)))
            else:
                found[ours] = binding
            continue
        conversion = _converted(owner.node, local, graph.parameters[ours].shape, parameter, stated.get("transpose"))
        if conversion is None:
            wrong(
                ours,
                "the shapes do not fit",
                found=f"{parameter.name} {list(parameter.shape)}, transpose {stated.get('transpose')}",
                allowed=str(list(graph.parameters[ours].shape)),
            )
            continue
        found[ours] = Binding(ours, parameter, conversion)
    if problems:
        raise InputError.from_problems(problems)
    return found


def _converted(
    node: Node, local: str, shape: tuple[int, ...], parameter: ForeignParameter, transpose: Any
) -> Conversion | None:
    if transpose is None:
        axes = our_axes(node, local, shape)
        return next(conversions(axes, shape, parameter.axes, parameter.shape), None) or next(
            conversions("", shape, "", parameter.shape), None
        )
    if not isinstance(transpose, list) or sorted(map(str, transpose)) != [str(n) for n in range(len(parameter.shape))]:
        return None
    turned = tuple(parameter.shape[axis] for axis in transpose)
    if prod(turned) != prod(shape) or [n for n in turned if n != 1] != [n for n in shape if n != 1]:
        return None
    return Conversion(parameter.shape, tuple(transpose), shape)
