"""Magnitude pruning: the smallest weights of the products become zero, where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from unitrain.graph.graph import Graph
from unitrain.graph.passes import Rewritten, Weights
from unitrain.spec.layers import DepthwiseConv1d, DepthwiseConv2d, FeatureTokens

Scope: TypeAlias = Literal["layer", "global"]
# Of so many neighbouring input channels, so many are kept: (2, 4).
Pattern: TypeAlias = tuple[int, int]
Mask: TypeAlias = npt.NDArray[np.bool_]


def prune_magnitude(
    graph: Graph,
    weights: Weights,
    sparsity: float = 0.5,
    scope: Scope = "layer",
    pattern: Pattern | None = None,
) -> Rewritten:
    """Set the smallest weights to zero (Han et al. 2015, section 3.1). No shape changes.

    Parameters
    ----------
    graph, weights
        The model.
    sparsity
        Fraction of zeros, 0 to 1, in the kernels that take part: see `prunable`.
    scope
        ``layer``: that fraction of each kernel; ``global``: of all of them together, by one threshold.
    pattern
        ``(n, m)``: in the place of ``sparsity`` and ``scope`` keep the n largest of every m neighbouring input channels
        of each output (Mishra et al. 2021, section 3). A kernel whose input channels are no multiple of m is left.
    """
    masks, notes = magnitude_masks(graph, weights, sparsity, scope, pattern)
    pruned = {name: array * masks[name] if name in masks else array for name, array in weights.items()}
    return Rewritten(graph, pruned, notes)


def magnitude_masks(
    graph: Graph,
    weights: Weights,
    sparsity: float,
    scope: Scope = "layer",
    pattern: Pattern | None = None,
) -> tuple[dict[str, Mask], tuple[str, ...]]:
    """Return what `prune_magnitude` keeps, by canonical name, and a line for each kernel that it leaves."""
    axes = prunable(graph)
    if pattern is not None:
        return _patterned(axes, weights, *pattern)
    if scope == "layer":
        return {name: _largest(np.abs(weights[name]), sparsity) for name in axes}, ()
    if not axes:
        return {}, ()
    together = np.concatenate([np.abs(weights[name]).ravel() for name in axes])
    ends = np.cumsum([weights[name].size for name in axes])[:-1]
    parts = np.split(_largest(together, sparsity), ends)
    return {name: part.reshape(weights[name].shape) for name, part in zip(axes, parts, strict=True)}, ()


def prunable(graph: Graph) -> dict[str, int | None]:
    """Return the kernels of products, and the axis of each that its input channels lie along.

    Kernels of matrix and convolution arithmetic are those; biases, norms, tables that are looked up in, and tables
    of positions are not. An axis of None: each output reads one channel.
    """
    axes: dict[str, int | None] = {}
    looked_up = set()
    for node in graph.nodes:
        for local, name in node.parameters.items():
            if not graph.parameters[name].decay or len(graph.parameters[name].shape) < 2:
                continue
            if not node.macs:
                looked_up.add(name)
                continue
            alone = isinstance(node.layer, DepthwiseConv1d | DepthwiseConv2d | FeatureTokens)
            axes[name] = None if alone or local == "depthwise_kernel" else -1 if local == "table" else -2
    return {name: axis for name, axis in axes.items() if name not in looked_up}


def sparsity_of(graph: Graph, weights: Weights) -> dict[str, float]:
    """Return the fraction of zeros in each kernel that `prune_magnitude` may prune."""
    return {name: 1.0 - np.count_nonzero(weights[name]) / weights[name].size for name in prunable(graph)}


def _largest(magnitudes: npt.NDArray[np.floating], sparsity: float) -> Mask:
    """Keep all but the smallest ``round(sparsity * size)``; of equals the first go."""
    dropped = round(sparsity * magnitudes.size)
    mask = np.ones(magnitudes.size, dtype=np.bool_)
    mask[np.argsort(magnitudes, axis=None, kind="stable")[:dropped]] = False
    return mask.reshape(magnitudes.shape)


def _patterned(
    axes: Mapping[str, int | None], weights: Weights, kept: int, of: int
) -> tuple[dict[str, Mask], tuple[str, ...]]:
    masks: dict[str, Mask] = {}
    notes = []
    for name, axis in axes.items():
        if axis is None:
            notes.append(f"{name} stays: each of its outputs reads one channel")
        elif weights[name].shape[axis] % of:
            notes.append(f"{name} stays: its {weights[name].shape[axis]} input channels are no multiple of {of}")
        else:
            runs = np.moveaxis(np.abs(weights[name]), axis, -1)
            order = np.argsort(-runs.reshape(*runs.shape[:-1], -1, of), axis=-1, kind="stable")
            mask = np.zeros(order.shape, dtype=np.bool_)
            np.put_along_axis(mask, order[..., :kept], True, axis=-1)
            masks[name] = np.moveaxis(mask.reshape(runs.shape), -1, axis)
    return masks, tuple(notes)
