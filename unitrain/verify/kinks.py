"""Kinks: where a layer's derivative jumps, so that a rounding error before it can turn a gradient around."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.numpy.execution import Mode, backward, forward
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.model import InputSpec
from unitrain.verify.rounding_flips import activation_flips, kernel_flips

Array = npt.NDArray[Any]

# Where the derivative of an activation jumps.
KINKS: dict[str, tuple[float, ...]] = {
    "relu": (0.0,),
    "relu6": (0.0, 6.0),
    "leaky_relu": (0.0,),
    "prelu": (0.0,),
    "elu": (0.0,),
    "selu": (0.0,),
    "hard_sigmoid": (-3.0, 3.0),
    "hard_swish": (-3.0, 3.0),
}
# Layers that approach a line or a constant far out, and what lies there.
SATURATING = ("elu", "selu", "gelu", "silu", "sigmoid", "tanh", "softplus", "softmax")
EXTREMES = (1000.0, -1000.0, 25.0, -25.0)
CHOOSING = ("max_pool1d", "max_pool2d", "max_pool3d", "global_max_pool", "max")


def with_kinks(node: Node, x: Array) -> Array:
    """Put some elements of a layer's input on its kinks, where frameworks take different derivatives.

    Every seventh element of an activation's input is set on a kink or beyond the outermost; for layers that choose
    the largest the last sample becomes coarse, so that many are equal. Other layers' inputs stay as they are.
    """
    if x.dtype.kind != "f" or not x.size:
        return x
    kinks = KINKS.get(node.layer.type)
    if kinks is not None:
        changed = x.copy().reshape(-1)
        places = np.arange(3, changed.size, 7)
        around = np.array([*kinks, max(kinks) + 1.5, min(kinks) - 1.5], changed.dtype)
        changed[places] = np.resize(around, len(places))
        return changed.reshape(x.shape)
    if node.layer.type in CHOOSING:
        coarse = x[-1:]
        unit = np.std(coarse) or 1.0
        return np.concatenate([x[:-1], (np.round(coarse / unit) * unit).astype(x.dtype)])
    return x


def with_extremes(node: Node, x: Array) -> Array:
    """Put some elements of a saturating layer's input far out, where exp overflows, in the last sample.

    A formula that does not guard against it gives Inf or NaN there. Other layers' inputs stay as they are. Shape
    ``[batch, ...]``.
    """
    if node.layer.type not in SATURATING or not x.size:
        return x
    changed = x.copy()
    last = changed[-1].reshape(-1)
    count = min(len(EXTREMES), last.size)
    last[:count] = EXTREMES[:count]
    changed[-1] = last.reshape(changed[-1].shape)
    return changed


def count_flips(
    graph: Graph,
    ours: Mapping[str, Array],
    theirs: Mapping[str, Array],
    weights: tuple[Mapping[str, Array], Mapping[str, Array]] | None = None,
) -> dict[str, int]:
    """Count, for each layer with kinks, the elements that lie on different sides in two training passes.

    Rounding to levels is one: next to a tie an element, of a value or of a kernel, falls to either level.

    Parameters
    ----------
    ours, theirs
        All values of the graph by node and input name, of the same batch.
    weights
        Of both, without which rounding to levels is not looked at.

    Returns
    -------
    flips
        By node name, in topological order; layers without a flip are left out.
    """
    flips: dict[str, int] = {}
    rounding = {} if weights is None else activation_flips(graph, (ours, theirs), weights, True)
    for node in graph.nodes:
        source = node.inputs[0]
        if node.layer.type in KINKS:
            count = _sides(node, ours[source], theirs[source])
        elif node.layer.type in CHOOSING:
            count = int((_chosen(node, ours) != _chosen(node, theirs)).sum()) // 2
        elif weights is not None:
            count = rounding.get(node.name, 0) + kernel_flips(graph, node, weights)
        else:
            continue
        if count:
            flips[node.name] = count
    return flips


def _sides(node: Node, ours: Array, theirs: Array) -> int:
    kinks = KINKS[node.layer.type]
    # On the kink itself the derivative is that of the left or of the right, so it is a side of its own.
    return int(sum((np.sign(ours - kink) != np.sign(theirs - kink)).sum() for kink in kinks))


def _chosen(node: Node, values: Mapping[str, Array]) -> Array:
    """Mark with a sum of ones, ``[batch, ...]``, how often each element is the largest of a window."""
    # A mask is among the inputs, and no gradient comes back to it.
    given, inputs = {}, {}
    for name, shape in zip(node.inputs, node.input_shapes, strict=True):
        integer = values[name].dtype.kind == "i"
        given[name] = InputSpec(shape=shape, dtype="integer" if integer else "float")
        inputs[name] = values[name].astype(np.int32 if integer else np.float64)
    graph = Graph("", given, (node,), {node.name: node.name}, {})
    done = forward(graph, {}, inputs, Mode(), differentiate=True, input_gradients=True)
    first = node.inputs[0]
    by_input, _ = backward(done, {node.name: np.ones((len(values[first]), *node.output_shape))})
    return by_input[first]
