"""The weight map: which of the user's parameters is which of the spec's, guessed or read from YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.foreign import ForeignParameter
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.errors import InputError, Problem, did_you_mean
from unitrain.spec.layers import BatchNorm
from unitrain.spec.layers.recurrent import RecurrentLayer
from unitrain.spec.yaml import Document, read_yaml, write_yaml
from unitrain.verify.against.layouts import Conversion, conversions, our_axes
from unitrain.verify.against.recurrent import Blocks, Source, recurrent_sources

Array = npt.NDArray[Any]

_KERNELS = frozenset({"kernel", "depthwise_kernel", "pointwise_kernel"})
# Local names for which frameworks have a word of their own; a parameter of any other name may have any role.
_KNOWN = _KERNELS | {"bias", "scale", "running_mean", "running_variance", "table", "slope"}


@dataclass(frozen=True)
class Binding:
    """One of the spec's parameters and the user's that it is.

    Parameters
    ----------
    ours
        Canonical name.
    theirs
        The user's.
    conversion
        From theirs to ours.
    also
        Further ones of theirs that are added to it, as the two biases of a recurrent layer are. Gradients by all of
        them are the same.
    """

    ours: str
    theirs: ForeignParameter
    conversion: Conversion | Blocks
    also: tuple[Source, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all of theirs."""
        return (self.theirs.name, *(parameter.name for parameter, _ in self.also))

    def value(self, arrays: Mapping[str, Array]) -> Array:
        """Return the canonical value, given their arrays."""
        value = self.conversion.to_ours(arrays[self.theirs.name])
        for parameter, conversion in self.also:
            value = value + conversion.to_ours(arrays[parameter.name])
        return value


Bindings = dict[str, Binding]


@dataclass(frozen=True)
class _Owner:
    """A layer with parameters: the node that owns them, local to canonical names."""

    node: Node
    parameters: Mapping[str, str]


def bind(
    graph: Graph, theirs: Sequence[ForeignParameter], used: frozenset[str], given: Document | None = None
) -> tuple[Bindings, list[str]]:
    """Say which parameters belong together: those that the map states, and the others by kind, shape, name and order.

    Parameters
    ----------
    graph
        The spec.
    theirs
        The user's parameters in the order of use.
    used
        Names of those that a forward pass reads.
    given
        The user's map.

    Returns
    -------
    bindings, missing
        And the canonical names for which nothing was found.

    Raises
    ------
    InputError
        The map names what is not there, or what does not fit.
    """
    found = _stated(graph, theirs, given) if given is not None else {}
    taken = _taken(found)
    free = [parameter for parameter in theirs if parameter.name not in taken and parameter.name in used]
    found |= _same_names(graph, free, found)
    taken = _taken(found)
    found |= _guessed(graph, [parameter for parameter in free if parameter.name not in taken], found)
    return {name: found[name] for name in graph.parameters if name in found}, [
        name for name in graph.parameters if name not in found
    ]


def _taken(bindings: Bindings) -> set[str]:
    return {name for binding in bindings.values() for name in binding.names}


def check_bound(
    graph: Graph,
    bindings: Bindings,
    missing: Sequence[str],
    theirs: Sequence[ForeignParameter],
    used: frozenset[str],
) -> None:
    """Raise `InputError` with what is left on both sides where the spec's parameters are not all found."""
    if not missing:
        return
    taken = _taken(bindings)
    left = [parameter for parameter in theirs if parameter.name not in taken]
    ours = ", ".join(f"{name} {list(graph.parameters[name].shape)}" for name in missing)
    raise InputError(
        "the weights of the two models do not match up",
        found="in the spec and not in the model: " + ours,
        allowed="in the model and not in the spec: "
        + (
            ", ".join(f"{item.name} {list(item.shape)}" + ("" if item.name in used else " (unused)") for item in left)
            or "nothing"
        ),
        hint="write a map with --write-map map.yaml, complete it, and give it back with --weights map.yaml",
    )


def _same_names(graph: Graph, free: Sequence[ForeignParameter], known: Bindings) -> Bindings:
    """Match parameters of the same name: ``y.query`` is theirs of that name, or the weight of their ``y.query``."""
    names = {parameter.name.replace("/", "."): parameter for parameter in free}
    found = {}
    for owner in _owners(graph):
        if isinstance(owner.node.layer, RecurrentLayer):
            continue  # a name does not tell the order of the gates
        for local, name in owner.parameters.items():
            # Parts of a layer: ``query`` and ``query_bias``, ``reduce_kernel`` and ``reduce_bias``.
            part, biased = name.removesuffix("_kernel").removesuffix("_bias"), name.endswith("_bias")
            alike = [name, *([f"{part}.bias"] if biased else [f"{part}.weight", f"{part}.kernel"])]
            theirs = next((names[other] for other in alike if other in names), None)
            if name in known or theirs is None:
                continue
            shape = graph.parameters[name].shape
            axes = our_axes(owner.node, local, shape)
            conversion = next(conversions(axes, shape, theirs.axes, theirs.shape), None)
            if conversion is not None:
                found[name] = Binding(name, theirs, conversion)
    return found


def _stated(graph: Graph, theirs: Sequence[ForeignParameter], given: Document) -> Bindings:
    if not isinstance(given.data, dict):
        raise InputError("a weight map is canonical names with the model's names", file=given.file)
    names = {parameter.name: parameter for parameter in theirs}
    owners = {canonical: (owner, local) for owner in _owners(graph) for local, canonical in owner.parameters.items()}
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
            binding = (_recurrent(graph, owner, [group, group]) or {}).get(ours)
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


def _owners(graph: Graph) -> list[_Owner]:
    owners: dict[str, _Owner] = {}
    for node in graph.nodes:
        if node.parameters:
            owners.setdefault(node.owner, _Owner(node, node.parameters))
    return list(owners.values())


def _guessed(graph: Graph, free: Sequence[ForeignParameter], known: Bindings) -> Bindings:
    """Match layer by layer: by name where a group of equal layers has the same names on both sides, else in order."""
    groups: dict[str, list[ForeignParameter]] = {}
    for parameter in free:
        groups.setdefault(parameter.owner, []).append(parameter)
    names = list(groups)
    owners = [owner for owner in _owners(graph) if any(name not in known for name in owner.parameters.values())]
    choices = {
        owner.node.name: {
            name: found
            for place, name in enumerate(names)
            if (found := _match(graph, owner, known, [groups[other] for other in names[place : place + _reach(owner)]]))
            is not None
        }
        for owner in owners
    }
    by_name = _by_names(owners, choices)
    result: Bindings = {}
    used: set[str] = {
        name for chosen in by_name for binding in choices[chosen][by_name[chosen]].values() for name in binding.names
    }
    # Layers that take all parameters of their counterpart come before those that leave some.
    for owner in owners:
        options = choices[owner.node.name]
        if owner.node.name in by_name:
            result |= options[by_name[owner.node.name]]
            continue
        fitting = [option for option in options.values() if used.isdisjoint(_taken(option))]
        fitting.sort(key=lambda option: _left(option, groups))
        if fitting:
            result |= fitting[0]
            used |= _taken(fitting[0])
    return result


def _reach(owner: _Owner) -> int:
    """Count the modules of theirs over which one layer's parameters may be spread."""
    return max(3, sum(local not in _KNOWN for local in owner.parameters))


def _left(option: Bindings, groups: Mapping[str, list[ForeignParameter]]) -> int:
    """Count the parameters of the owners in use that a match leaves over."""
    taken = _taken(option)
    owners = {binding.theirs.owner for binding in option.values()}
    return sum(parameter.name not in taken for owner in owners for parameter in groups[owner])


def _match(graph: Graph, owner: _Owner, known: Bindings, groups: Sequence[list[ForeignParameter]]) -> Bindings | None:
    """Match a layer's parameters with those of an owner, and where it lacks some with the next ones'."""
    if isinstance(owner.node.layer, RecurrentLayer) and any(item.blocks for item in groups[0]):
        return _recurrent(graph, owner, groups)
    found: Bindings = {}
    taken: set[str] = set()
    for local, canonical in owner.parameters.items():
        if canonical in known:
            continue
        shape = graph.parameters[canonical].shape
        for place, group in enumerate(groups):
            # The first parameter decides with whom a layer is matched.
            if place and not found:
                break
            binding = next(
                (
                    Binding(canonical, parameter, conversion)
                    for parameter in sorted(group, key=lambda item: item.role != local)
                    if parameter.name not in taken and _same_role(local, parameter.role)
                    for conversion in conversions(
                        our_axes(owner.node, local, shape), shape, parameter.axes, parameter.shape
                    )
                ),
                None,
            )
            if binding is not None:
                found[canonical] = binding
                taken.add(binding.theirs.name)
                break
        else:
            return None
        if canonical not in found:
            return None
    return found


def _recurrent(graph: Graph, owner: _Owner, groups: Sequence[list[ForeignParameter]]) -> Bindings | None:
    """Match a recurrent layer with one whose gates are known."""
    shapes = {local: graph.parameters[name].shape for local, name in owner.parameters.items()}
    sources = recurrent_sources(owner.node, shapes, groups)
    if sources is None:
        return None
    return {
        name: Binding(name, *sources[local][0], tuple(sources[local][1:])) for local, name in owner.parameters.items()
    }


def _same_role(local: str, role: str) -> bool:
    if local == "table" and role == "kernel":  # of a projection that is tied to an embedding
        return True
    return role in ("", local) or local not in _KNOWN or (local in _KERNELS and role in _KERNELS)


def _by_names(owners: Sequence[_Owner], choices: Mapping[str, Mapping[str, Bindings]]) -> dict[str, str]:
    """Pair layers by name, group by group of layers that could be exchanged; a group only if all of it has a pair."""
    groups: dict[frozenset[str], list[str]] = {}
    for owner in owners:
        options = frozenset(choices[owner.node.name])
        if options:
            groups.setdefault(options, []).append(owner.node.name)
    pairs: dict[str, str] = {}
    for options, members in groups.items():
        named = {member: [name for name in options if _alike(member, name)] for member in members}
        if all(len(found) == 1 for found in named.values()) and len({found[0] for found in named.values()}) == len(
            members
        ):
            pairs |= {member: found[0] for member, found in named.items()}
    taken = [_taken(choices[member][name]) for member, name in pairs.items()]
    return pairs if len(set().union(*taken)) == sum(map(len, taken)) else {}


def _alike(ours: str, theirs: str) -> bool:
    """Tell whether two names are the same but for case, separators and what encloses them."""
    own, whole = _plain(ours), _plain(theirs)
    parts = theirs.replace("/", ".").split(".")
    return own == whole or any(own == _plain(".".join(parts[place:])) for place in range(len(parts)))


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def unfolded(
    graph: Graph, bindings: Bindings, missing: Sequence[str], theirs: Sequence[ForeignParameter]
) -> tuple[Bindings, dict[str, Array], list[str]]:
    """Take batch norms of which a model for inference has nothing left for the identity.

    Exporters multiply them into the convolution or dense layer before. What that had no bias for has now become one:
    it is the norm's bias.

    Returns
    -------
    bindings, stand_ins, missing
        As of `bind`, and the weights of the norms that compute nothing.
    """
    left = set(missing)
    bound = dict(bindings)
    taken = _taken(bindings)
    stand_ins: dict[str, Array] = {}
    producers = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        names = node.parameters
        before = producers.get(node.inputs[0])
        if not isinstance(node.layer, BatchNorm) or before is None or not left.issuperset(names.values()):
            continue
        kernel = bound.get(before.parameters.get("kernel", ""))
        if kernel is None:
            continue
        channels = node.output_shape[-1]
        own = {"running_mean": 0.0, "running_variance": 1.0 - node.layer.epsilon, "scale": 1.0, "bias": 0.0}
        if "bias" not in before.parameters:
            for parameter in theirs:
                same = parameter.owner == kernel.theirs.owner and parameter.role == "bias"
                if same and parameter.name not in taken and "bias" in names and parameter.shape == (channels,):
                    bound[names["bias"]] = Binding(names["bias"], parameter, Conversion((channels,), (0,), (channels,)))
                    taken.add(parameter.name)
                    own.pop("bias")
                    break
        stand_ins |= {
            names[local]: np.full(channels, value, np.float32) for local, value in own.items() if local in names
        }
        left -= set(names.values())
    return bound, stand_ins, [name for name in missing if name in left]


def canonical(bindings: Bindings, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the user's weights in canonical form, float32."""
    return {name: binding.value(arrays).astype(np.float32) for name, binding in bindings.items()}


def with_rows(bindings: Bindings, name: str, rows: Sequence[int]) -> Bindings:
    """Return the bindings with the rows of one parameter in another order."""
    binding = bindings[name]
    conversion = binding.conversion
    if isinstance(conversion, Blocks):  # of a sequence, which nobody flattens
        return bindings
    return {**bindings, name: replace(binding, conversion=replace(conversion, rows=tuple(rows)))}


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
