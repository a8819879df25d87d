"""Guesses which parameters belong together: by kind and shape, by name, and in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from unitrain.backends.foreign import ForeignParameter
from unitrain.graph.graph import Graph
from unitrain.spec.layers.recurrent import RecurrentLayer
from unitrain.verify.against.bindings import Binding, Bindings, Owner, owners_of, taken_by
from unitrain.verify.against.layouts import conversions, our_axes
from unitrain.verify.against.recurrent import recurrent_sources

Array = npt.NDArray[Any]


_KERNELS = frozenset({"kernel", "depthwise_kernel", "pointwise_kernel"})
# Local names for which frameworks have a word of their own; a parameter of any other name may have any role.
_KNOWN = _KERNELS | {"bias", "scale", "running_mean", "running_variance", "table", "slope"}


def same_names(graph: Graph, free: Sequence[ForeignParameter], known: Bindings) -> Bindings:
    """Match parameters of the same name: ``y.query`` is theirs of that name, or the weight of their ``y.query``."""
    names = {parameter.name.replace("/", "."): parameter for parameter in free}
    found = {}
    for owner in owners_of(graph):
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


def guessed(graph: Graph, free: Sequence[ForeignParameter], known: Bindings) -> Bindings:
    """Match layer by layer: by name where a group of equal layers has the same names on both sides, else in order."""
    groups: dict[str, list[ForeignParameter]] = {}
    for parameter in free:
        groups.setdefault(parameter.owner, []).append(parameter)
    names = list(groups)
    owners = [owner for owner in owners_of(graph) if any(name not in known for name in owner.parameters.values())]
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
        fitting = [option for option in options.values() if used.isdisjoint(taken_by(option))]
        fitting.sort(key=lambda option: _left(option, groups))
        if fitting:
            result |= fitting[0]
            used |= taken_by(fitting[0])
    return result


def _reach(owner: Owner) -> int:
    """Count the modules of theirs over which one layer's parameters may be spread."""
    return max(3, sum(local not in _KNOWN for local in owner.parameters))


def _left(option: Bindings, groups: Mapping[str, list[ForeignParameter]]) -> int:
    """Count the parameters of the owners in use that a match leaves over."""
    taken = taken_by(option)
    owners = {binding.theirs.owner for binding in option.values()}
    return sum(parameter.name not in taken for owner in owners for parameter in groups[owner])


def _match(graph: Graph, owner: Owner, known: Bindings, groups: Sequence[list[ForeignParameter]]) -> Bindings | None:
    """Match a layer's parameters with those of an owner, and where it lacks some with the next ones'."""
    if isinstance(owner.node.layer, RecurrentLayer) and any(item.blocks for item in groups[0]):
        return recurrent_bindings(graph, owner, groups)
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


def recurrent_bindings(graph: Graph, owner: Owner, groups: Sequence[list[ForeignParameter]]) -> Bindings | None:
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


def _by_names(owners: Sequence[Owner], choices: Mapping[str, Mapping[str, Bindings]]) -> dict[str, str]:
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
    taken = [taken_by(choices[member][name]) for member, name in pairs.items()]
    return pairs if len(set().union(*taken)) == sum(map(len, taken)) else {}


def _alike(ours: str, theirs: str) -> bool:
    """Tell whether two names are the same but for case, separators and what encloses them."""
    own, whole = _plain(ours), _plain(theirs)
    parts = theirs.replace("/", ".").split(".")
    return own == whole or any(own == _plain(".".join(parts[place:])) for place in range(len(parts)))


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
