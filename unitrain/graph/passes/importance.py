"""How much a channel is worth: a number for each set of positions that goes together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from unitrain.graph.graph import Graph
from unitrain.graph.passes import Weights, in_double
from unitrain.spec.layers import BatchNorm

Importance: TypeAlias = Literal["l1", "batch_norm", "taylor"]
IMPORTANCES: tuple[Importance, ...] = ("l1", "batch_norm", "taylor")

Scores: TypeAlias = npt.NDArray[np.float64]


class Member(NamedTuple):
    """One axis of a parameter along which channels of a group lie.

    Parameters
    ----------
    parameter
        Canonical name.
    axis
        Which axis.
    places
        For each position of the axis the channel of the group, counted from 0, or as many as there are for none.
    """

    parameter: str
    axis: int
    places: npt.NDArray[np.int64]


def by_magnitude(graph: Graph, weights: Weights, members: Sequence[Member], size: int) -> Scores | None:
    """Mean magnitude of a channel's weights, of each kernel in units of the group's mean, averaged over kernels.

    The L1 norm of Li et al. 2017, section 3.1, over all kernels that make or read the channel, so normalised that
    layers of any scale can be compared (Fang et al. 2023, section 3.3).
    """
    scores = []
    for member in members:
        if graph.parameters[member.parameter].decay:
            sums = _sums(np.abs(in_double(weights[member.parameter])), member, size)
            scores.append(sums / max(sums.mean(), np.finfo(np.float64).tiny))
    return np.mean(scores, axis=0) if scores else None


def by_batch_norm(graph: Graph, weights: Weights, members: Sequence[Member], size: int) -> Scores | None:
    """Mean magnitude of the scales of a channel's batch norms (Liu et al. 2017, section 3); None where it has none."""
    scales = {node.parameters.get("scale") for node in graph.nodes if isinstance(node.layer, BatchNorm)}
    scores = [
        _sums(np.abs(in_double(weights[one.parameter])), one, size) / np.bincount(one.places, minlength=size)[:size]
        for one in members
        if one.parameter in scales
    ]
    return np.mean(scores, axis=0) if scores else None


def by_taylor(weights: Weights, gradients: Iterable[Weights], members: Sequence[Member], size: int) -> Scores:
    """Squared sum of gradient times weight over all that goes with the channel, averaged over batches.

    The first-order estimate of how the loss changes (Molchanov et al. 2019, equation 8).
    """
    total, batches = np.zeros(size), 0
    for batch in gradients:
        sums = np.zeros(size)
        for member in members:
            if member.parameter in batch:
                product = in_double(weights[member.parameter]) * in_double(batch[member.parameter])
                sums += _sums(product, member, size)
        total, batches = total + np.square(sums), batches + 1
    return total / max(batches, 1)


def _sums(array: npt.NDArray[np.float64], member: Member, size: int) -> Scores:
    """Add up the elements of each channel."""
    others = tuple(axis for axis in range(array.ndim) if axis != member.axis)
    sums: Scores = np.bincount(member.places, weights=array.sum(axis=others), minlength=size)[:size].astype(np.float64)
    return sums


def scores_of(
    importance: Importance,
    graph: Graph,
    weights: Weights,
    members: Sequence[Member],
    size: int,
    gradients: Sequence[Mapping[str, npt.NDArray[np.floating]]],
) -> Scores | None:
    """Return the worth of each of a group's channels; None where this importance says nothing of them."""
    if importance == "taylor":
        return by_taylor(weights, gradients, members, size)
    score = by_magnitude if importance == "l1" else by_batch_norm
    return score(graph, weights, members, size)
