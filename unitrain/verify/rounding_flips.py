"""Rounding as a kink: a value next to a tie of `FakeQuantize`, or of a kernel's quantizer, falls to either level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.numpy.quantize import moved_range
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers import FakeQuantize
from unitrain.verify.findings import Finding, TensorName
from unitrain.verify.rounding import FORMATS
from unitrain.verify.subject import Subject
from unitrain.verify.verdict import bound_for
from unitrain.weights.quantize import grid, kernel_levels_of, settled_grid

Array = npt.NDArray[Any]


def activation_flips(
    graph: Graph, values: tuple[Mapping[str, Array], ...], weights: tuple[Mapping[str, Array], ...], training: bool
) -> dict[str, int]:
    """Count the elements that each layer rounds to different levels in two runs; layers without any are left out.

    Parameters
    ----------
    values
        Of each run: by node and input name, ``[batch, ..., channel]``.
    weights
        Of each run: by canonical name.
    training
        Whether a moving range takes up the batch's. Where layers share it, the later one goes on from there.
    """
    held = tuple(dict(own) for own in weights)
    flips = {}
    for node in graph.nodes:
        if isinstance(node.layer, FakeQuantize):
            ours, theirs = (
                _rounded(node, node.layer, run, own, training) for run, own in zip(values, held, strict=True)
            )
            # A backend may divide otherwise than NumPy does, so that only its result shows the level it took.
            apart = np.abs(values[0][node.name] - values[1][node.name]) > ours.step / 2
            count = int(((ours.levels != theirs.levels) | (apart & (ours.near | theirs.near))).sum())
            if count:
                flips[node.name] = count
    return flips


@dataclass(frozen=True)
class _Rounded:
    """The levels of a layer's input, the step between them, and which elements lie within rounding of a tie."""

    levels: Array
    step: Array
    near: Array


def _rounded(
    node: Node, layer: FakeQuantize, values: Mapping[str, Array], weights: dict[str, Array], training: bool
) -> _Rounded:
    """Round as NumPy does; a range that moves is moved in ``weights``."""
    x = np.asarray(values[node.inputs[0]])
    parameters = {local: weights[name].astype(x.dtype) for local, name in node.parameters.items()}
    if training and layer.range == "moving_average":
        moved = moved_range(layer, parameters, x)
        weights.update({node.parameters[local]: value for local, value in moved.items()})
        step, zero = grid(layer, *moved.values())
    else:
        step, zero = settled_grid(layer, parameters, x.dtype)
    quotient = x / step
    distance = np.abs(np.abs(quotient - np.trunc(quotient)) - 0.5)
    near = distance <= 2.0 * bound_for(1) * FORMATS["float32"].roundoff * np.maximum(np.abs(quotient), 1.0)
    return _Rounded(np.rint(quotient) + zero, step, near)


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
        flips = activation_flips(graph, tuple(values), weights, mode == "training")
        behind: dict[str, str] = {}
        for node in graph.nodes:
            own = node.name if node.name in flips else ""
            first = next((behind[source] for source in node.inputs if source in behind), own)
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
