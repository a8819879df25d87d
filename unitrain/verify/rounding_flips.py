"""Rounding as a kink: a value next to a tie of `FakeQuantize`, or of a kernel's quantizer, falls to either level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.numpy.quantize import moved_range
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers import FakeQuantize
from unitrain.verify.findings import Finding, TensorName
from unitrain.verify.subject import Subject
from unitrain.weights.quantize import grid, kernel_levels_of, settled_grid

Array = npt.NDArray[Any]


def activation_flips(
    node: Node, values: tuple[Mapping[str, Array], ...], weights: tuple[Mapping[str, Array], ...], training: bool
) -> int:
    """Count the elements that a layer rounds to different levels in two runs; 0 for a layer that does not round.

    Parameters
    ----------
    values
        Of each run: by node and input name, ``[batch, ..., channel]``.
    weights
        Of each run: by canonical name.
    training
        Whether a moving range takes up the batch's.
    """
    layer = node.layer
    if not isinstance(layer, FakeQuantize):
        return 0
    levels, results, steps = [], [], []
    for held, own in zip(values, weights, strict=True):
        x = np.asarray(held[node.inputs[0]])
        parameters = {local: own[name].astype(x.dtype) for local, name in node.parameters.items()}
        if training and layer.range == "moving_average":
            scale, zero = grid(layer, *moved_range(layer, parameters, x).values())
        else:
            scale, zero = settled_grid(layer, parameters, x.dtype)
        levels.append(np.rint(x / scale) + zero)
        results.append(held[node.name])
        steps.append(scale)
    # A backend may divide otherwise than NumPy does, so that only its result shows the level it took.
    apart = np.abs(results[0] - results[1]) > steps[0] / 2
    return int(((levels[0] != levels[1]) | apart).sum())


def echoes_of_rounding(
    subject: Subject, findings: Sequence[Finding], theirs: Mapping[TensorName, Array], ours: Mapping[TensorName, Array]
) -> list[Finding]:
    """Excuse results of the whole model that fail behind a layer where a value fell to another level.

    A level is far more than rounding costs, so that results part too, and not gradients alone as at other kinks. What
    fails before the first such layer stays a failure.
    """
    graph, weights = subject.graph, (subject.weights, subject.weights)
    excused: dict[TensorName, str] = {}
    for mode in ("training", "inference"):
        names = {name.part: name for name in theirs if name.level == "forward" and name.mode == mode and name in ours}
        if not names.keys() >= {node.name for node in graph.nodes}:
            continue
        inputs = subject.batch(0).inputs
        values = [{**inputs, **{part: held[name] for part, name in names.items()}} for held in (ours, theirs)]
        behind: dict[str, str] = {}
        for node in graph.nodes:
            flipped = activation_flips(node, tuple(values), weights, mode == "training")
            first = next((behind[source] for source in node.inputs if source in behind), node.name if flipped else "")
            if first:
                behind[node.name] = first
                excused[names[node.name]] = f"flip in {first}"
    return [
        replace(item, excuse=excused[item.name]) if item.failed and item.name in excused else item for item in findings
    ]


def kernel_flips(graph: Graph, node: Node, weights: tuple[Mapping[str, Array], ...]) -> int:
    """Count the weights of a layer's kernels that two sets of weights round to different levels."""
    count = 0
    for name in node.parameters.values():
        parameter = graph.parameters[name]
        if parameter.quantizer is not None:
            ours, theirs = (kernel_levels_of(own[name], parameter) for own in weights)
            count += int((ours != theirs).sum())
    return count
