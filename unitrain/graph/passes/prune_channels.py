"""Structured pruning: whole channels go, and every shape that they are part of shrinks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import gcd
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.graph.passes import Array, Weights
from unitrain.graph.passes.channel_rules import rule_of
from unitrain.graph.passes.channels import NO_CHANNEL, Dependencies, Numbers, Traced, trace
from unitrain.graph.passes.importance import IMPORTANCES, Importance, Member, Scores, scores_of
from unitrain.graph.respell import rebuild
from unitrain.spec.errors import InputError, unknown_name
from unitrain.spec.layers import FakeQuantize

Scope: TypeAlias = Literal["group", "global"]
SCOPES: tuple[Scope, ...] = ("group", "global")


@dataclass(frozen=True)
class Group:
    """Channels that lie along the same axes of the same parameters, from which some are chosen.

    Parameters
    ----------
    layers
        The layers that make them, in the order of computation.
    before, after
        How many there were, and are.
    """

    layers: tuple[str, ...]
    before: int
    after: int


class Pruned(NamedTuple):
    """What `prune_channels` gives.

    Parameters
    ----------
    graph, weights
        The smaller model.
    notes
        A line for the channels that had to stay, with the reason.
    groups
        What became of the others.
    masked
        The weights of the model as it was with zeros for everything that has gone: both compute the same.
    """

    graph: Graph
    weights: dict[str, Array]
    notes: tuple[str, ...]
    groups: tuple[Group, ...]
    masked: dict[str, Array]


@dataclass(frozen=True)
class _Choice:
    """A group before it is decided: the roots of its channels, and where they lie."""

    layers: tuple[str, ...]
    roots: npt.NDArray[np.int64]
    members: tuple[Member, ...]
    width: int
    """Positions that a channel takes of the axis of which it takes fewest: channels of a head, one of a filter."""


def prune_channels(
    graph: Graph,
    weights: Weights,
    ratio: float = 0.5,
    multiple: int = 16,
    importance: Importance = "l1",
    scope: Scope = "group",
    gradients: Iterable[Weights] = (),
) -> Pruned:
    """Remove the channels that matter least, and all weights that belong to them.

    The smaller model computes what the model computed with zeros in the place of those weights.

    Parameters
    ----------
    graph, weights
        The model.
    ratio
        Fraction of the channels to remove, at least 0 and below 1.
    multiple
        What the number of channels that stay is a multiple of, at least one multiple: of each group the number nearest
        to the ratio is taken. A group with fewer channels than that stays whole.
    importance
        ``l1``, ``batch_norm`` or ``taylor``: see `unitrain.graph.passes.importance`.
    scope
        ``group``: the ratio holds of each group; ``global``: of all channels together, those of the least importance.
    gradients
        For ``taylor``: the gradients by the parameters, one mapping for each batch.

    Raises
    ------
    InputError
        An argument is outside its range, or gradients are missing.
    """
    batches = tuple(gradients)
    _check(ratio, multiple, importance, scope, batches)
    found = trace(graph, rule_of)
    choices, notes = _choices(found)
    scored: list[tuple[_Choice, Scores]] = []
    for choice in choices:
        scores = scores_of(importance, graph, weights, choice.members, len(choice.roots), batches)
        if scores is None:
            notes.append(
                f"{_named(choice.layers)}: {len(choice.roots)} channels stay: they have no batch norm with a scale"
            )
        else:
            scored.append((choice, scores))
    targets = _targets(scored, ratio, scope)
    groups, gone = [], set[int]()
    for (choice, scores), target in zip(scored, targets, strict=True):
        before = len(choice.roots)
        after = _rounded(before, target, multiple // gcd(multiple, choice.width))
        gone.update(choice.roots[np.argsort(scores, kind="stable")[: before - after]].tolist())
        groups.append(Group(choice.layers, before * choice.width, after * choice.width))
    return _without(graph, weights, found, gone, tuple(notes), tuple(groups))


def _check(ratio: float, multiple: int, importance: str, scope: str, batches: Sequence[Weights]) -> None:
    if not 0.0 <= ratio < 1.0:
        raise InputError("the ratio is the fraction of channels to remove", found=str(ratio), allowed="0 <= ratio < 1")
    if multiple < 1:
        raise InputError("channels stay in multiples of a positive number", field=("multiple",), found=str(multiple))
    if importance not in IMPORTANCES:
        raise unknown_name("importance", importance, IMPORTANCES, ("importance",))
    if scope not in SCOPES:
        raise unknown_name("scope", scope, SCOPES, ("scope",))
    if importance == "taylor" and not batches:
        raise InputError("the importance 'taylor' needs the gradients of a batch or more", field=("gradients",))


def _choices(found: Dependencies) -> tuple[list[_Choice], list[str]]:
    """Gather the channels that may go into groups; return those, and a line for what has to stay."""
    channels = found.channels
    where: dict[int, Counter[tuple[str, int]]] = defaultdict(Counter)
    axes_of: dict[tuple[str, int], Numbers] = {}
    for name, axes in found.parameters.items():
        for axis, numbers in enumerate(axes):
            if numbers.any():
                axes_of[name, axis] = roots = channels.roots(numbers)
                for root, count in zip(*np.unique(roots, return_counts=True), strict=True):
                    if root != NO_CHANNEL:
                        where[int(root)][name, axis] += int(count)
    layers: dict[int, dict[str, None]] = defaultdict(dict)
    for number, layer in found.makers.items():
        layers[channels.root(number)][layer] = None
    alike: dict[Any, list[int]] = defaultdict(list)
    stay: dict[tuple[tuple[str, ...], str], int] = Counter()
    for root, places in where.items():
        reason = channels.reason(root)
        if reason is None:
            alike[frozenset(places.items())].append(root)
        elif layers[root]:
            stay[tuple(layers[root]), reason] += 1
    choices = []
    for signature, together in alike.items():
        roots = np.sort(np.array(together, dtype=np.int64))
        members = tuple(
            Member(name, axis, _places(axes_of[name, axis], roots)) for (name, axis), _ in sorted(signature)
        )
        makers = tuple(layers[int(roots[0])])
        choices.append(_Choice(makers, roots, members, min(count for _, count in signature)))
    notes = [f"{_named(made)}: {count} channels stay: {reason}" for (made, reason), count in stay.items()]
    return choices, notes


def _places(numbers: Numbers, roots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return for each position which of the sorted roots it has, or as many as there are for another."""
    places = np.searchsorted(roots, numbers)
    inside = places < len(roots)
    inside[inside] = roots[places[inside]] == numbers[inside]
    return np.where(inside, places, len(roots))


def _targets(scored: Sequence[tuple[_Choice, Scores]], ratio: float, scope: Scope) -> list[float]:
    """Return how many channels of each group are to stay, not yet rounded."""
    if scope == "group" or not scored:
        return [(1.0 - ratio) * len(choice.roots) for choice, _ in scored]
    scores = np.concatenate([values for _, values in scored])
    widths = np.concatenate([np.full(len(choice.roots), choice.width) for choice, _ in scored])
    order = np.argsort(scores, kind="stable")
    stays = np.ones(len(scores), dtype=np.bool_)
    stays[order[np.cumsum(widths[order]) <= ratio * widths.sum()]] = False
    ends = np.cumsum([len(choice.roots) for choice, _ in scored])[:-1]
    return [float(part.sum()) for part in np.split(stays, ends)]


def _rounded(before: int, target: float, step: int) -> int:
    """Return the multiple of ``step``, or all, that lies nearest to the target; of two the larger."""
    allowed: list[int] = [before, *range(step, before, step)]
    return min(allowed, key=lambda count: (abs(count - target), -count))


def _without(
    graph: Graph,
    weights: Weights,
    found: Dependencies,
    gone: set[int],
    notes: tuple[str, ...],
    groups: tuple[Group, ...],
) -> Pruned:
    """Take channels out of every parameter and layer."""
    removed = np.array(sorted(gone), dtype=np.int64)

    def stays(numbers: Numbers) -> npt.NDArray[np.bool_]:
        return ~np.isin(found.channels.roots(numbers), removed)

    # Zero is quantised to zero whatever the range, but a range must not be zero itself.
    ranges = {name for node in graph.nodes if isinstance(node.layer, FakeQuantize) for name in node.parameters.values()}
    smaller, masked = {}, {}
    for name, array in weights.items():
        masked[name] = array
        for axis, numbers in enumerate(found.parameters[name]):
            kept = stays(numbers)
            if not kept.all():
                view = kept.reshape([-1 if place == axis else 1 for place in range(array.ndim)])
                masked[name] = masked[name] if name in ranges else masked[name] * view.astype(array.dtype)
                array = np.compress(kept, array, axis=axis)
        smaller[name] = array
    nodes = [_smaller(node, found.nodes[node.name], stays) for node in graph.nodes]
    return Pruned(rebuild(graph, nodes), smaller, notes, groups, masked)


def _smaller(node: Node, traced: Traced, stays: Callable[[Numbers], npt.NDArray[np.bool_]]) -> Node:
    """Write out the fields of a layer that count channels, if any of what it has or counts have gone.

    All of them: where one was left to its default, that would be taken from a smaller input now.
    """
    counted = {name: value if isinstance(value, tuple) else (value,) for name, value in traced.fields.items()}
    touched = (*chain(*traced.parameters.values()), *chain(*counted.values()), *traced.counted)
    if all(stays(numbers).all() for numbers in touched):
        return node
    counts = {name: tuple(int(stays(part).sum()) for part in parts) for name, parts in counted.items()}
    fields = {name: count if isinstance(traced.fields[name], tuple) else count[0] for name, count in counts.items()}
    return replace(node, layer=(traced.layer or node.layer).model_copy(update={**traced.settings, **fields}))


def _named(layers: Sequence[str]) -> str:
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return f"{layers[0]}{more}"
