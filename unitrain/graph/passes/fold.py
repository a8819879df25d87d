"""Batch norm folded into the layer before or behind it: what inference computes, with a layer less."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.graph.passes import Array, Rewritten, Weights, in_double, used_once
from unitrain.graph.respell import rebuild
from unitrain.spec.layers import (
    AFFINE_LAYERS,
    BatchNorm,
    Conv1d,
    Conv2d,
    Conv3d,
    Dense,
    DepthwiseConv1d,
    DepthwiseConv2d,
    LayerSpec,
    PatchEmbedding,
    SeparableConv1d,
    SeparableConv2d,
)

Vector: TypeAlias = npt.NDArray[np.float64]

_CONVOLUTIONS = (Conv1d, Conv2d, Conv3d)
_DEPTHWISE = (DepthwiseConv1d, DepthwiseConv2d)
_SEPARABLE = (SeparableConv1d, SeparableConv2d)
_BEHIND = (Dense, PatchEmbedding, *_CONVOLUTIONS, *_DEPTHWISE)


def fold_batch_norm(graph: Graph, weights: Weights) -> Rewritten:
    """Fold every batch norm that inference can do without.

    With f = scale / sqrt(variance + epsilon) a batch norm is ``f x + (bias - mean f)``: a factor and a shift of each
    channel (Jacob et al. 2018, section 3.2). The layer before takes both into its kernel and bias. Where there is
    none that can, the layers behind take them up, if all can: those that pad with zeros cannot, since what they pad
    would have to be shifted too. Inference computes the same numbers but for rounding; training does not.

    Raises
    ------
    KeyError
        ``weights`` lack a parameter of the graph.
    """
    result = dict(weights)
    nodes = {node.name: node for node in graph.nodes}
    once, notes = used_once(graph), []
    for norm in graph.nodes:
        if not isinstance(norm.layer, BatchNorm):
            continue
        factor, shift = _as_affine(norm, result)
        readers = [node for node in nodes.values() if norm.name in node.inputs]
        before, reason = _before(graph, nodes, norm, once)
        if before is not None:
            nodes[before.name] = _into_output(before, result, factor, shift)
        elif (
            norm.name not in graph.outputs.values()
            and readers
            and all(_takes_input(one, norm, once) for one in readers)
        ):
            for reader in readers:
                nodes[reader.name] = _into_input(reader, result, factor, shift)
        else:
            notes.append(f"{norm.name} stays: {reason}")
            continue
        del nodes[norm.name]
        for reader in readers:
            inputs = tuple(norm.inputs[0] if name == norm.name else name for name in nodes[reader.name].inputs)
            nodes[reader.name] = replace(nodes[reader.name], inputs=inputs)
    folded = rebuild(graph, nodes.values())
    return Rewritten(folded, {name: result[name] for name in folded.parameters}, tuple(notes))


def _as_affine(norm: Node, weights: Weights) -> tuple[Vector, Vector]:
    """Return factor and shift of each channel, in float64."""
    assert isinstance(norm.layer, BatchNorm)
    value = {local: in_double(weights[name]) for local, name in norm.parameters.items()}
    factor = value.get("scale", np.ones(1)) / np.sqrt(value["running_variance"] + norm.layer.epsilon)
    return factor, value.get("bias", np.zeros(1)) - value["running_mean"] * factor


def _before(graph: Graph, nodes: dict[str, Node], norm: Node, once: frozenset[str]) -> tuple[Node | None, str]:
    """Return the layer that can take a batch norm into its kernel and bias, or None and why there is none."""
    before = nodes.get(nodes[norm.name].inputs[0])
    if norm.name in graph.outputs.values():
        return None, "it is an output of the model"
    if not once.issuperset(norm.parameters.values()):
        return None, "its parameters are shared"
    if before is None or not isinstance(before.layer, AFFINE_LAYERS):
        what = "an input of the model" if before is None else f"{before.layer.type} '{before.name}'"
        return None, f"it reads {what}, and no layer behind can take it up"
    if not once.issuperset(before.parameters.values()):
        return None, f"'{before.name}' shares its parameters"
    quantizer = getattr(before.layer, "kernel_quantizer", None)
    if quantizer is not None and not quantizer.per_channel:
        # A scale of each channel takes the channel's factor up, and no weight changes its level.
        return None, f"the kernel of '{before.name}' is quantised with one scale, and folding would change its levels"
    reads = sum(node.inputs.count(before.name) for node in nodes.values())
    if reads > 1 or before.name in graph.outputs.values():
        return None, f"'{before.name}' is also read without it"
    return before, ""


def _takes_input(reader: Node, norm: Node, once: frozenset[str]) -> bool:
    """Tell whether a layer can take what a batch norm does to its input into its kernel and bias."""
    layer = reader.layer
    if not isinstance(layer, _BEHIND) or getattr(layer, "kernel_quantizer", None) is not None:
        return False
    if not once.issuperset((*reader.parameters.values(), *norm.parameters.values())):
        return False
    pads = isinstance(layer, _CONVOLUTIONS + _DEPTHWISE) and any(map(any, layer.pads(reader.input_shapes[0])))
    return reader.inputs == (norm.name,) and not pads


def _into_output(node: Node, weights: dict[str, Array], factor: Vector, shift: Vector) -> Node:
    """Multiply what a layer gives by ``factor`` and add ``shift``."""
    local = "pointwise_kernel" if isinstance(node.layer, _SEPARABLE) else "kernel"
    kernel = weights[node.parameters[local]]
    by_column = np.broadcast_to(factor, shift.shape)
    if isinstance(node.layer, _DEPTHWISE):
        by_column = by_column.reshape(kernel.shape[-2:])
    bias = _bias(node, weights, len(shift)) * factor + shift
    weights[node.parameters[local]] = (in_double(kernel) * by_column).astype(kernel.dtype)
    return _with_bias(node, weights, bias.astype(kernel.dtype))


def _into_input(node: Node, weights: dict[str, Array], factor: Vector, shift: Vector) -> Node:
    """Multiply what a layer reads by ``factor`` and add ``shift``, both before its kernel."""
    kernel = weights[node.parameters["kernel"]]
    layer: LayerSpec = node.layer
    factor = np.broadcast_to(factor, shift.shape)
    columns = kernel.shape[-1]
    if isinstance(layer, _DEPTHWISE):
        factors, shifts = factor[:, None], shift[:, None]
        columns = kernel.shape[-1] * kernel.shape[-2]
    elif isinstance(layer, _CONVOLUTIONS):
        # Column o reads the channels of its group: [in / groups, out].
        factors, shifts = (
            np.repeat(each.reshape(layer.groups, -1), columns // layer.groups, axis=0).T for each in (factor, shift)
        )
    else:
        factors, shifts = factor[:, None], shift[:, None]
    moved = in_double(kernel) * shifts
    spatial = tuple(range(kernel.ndim - 2))
    added = moved.sum(axis=spatial).reshape(-1) if isinstance(layer, _DEPTHWISE) else moved.sum(axis=(*spatial, -2))
    bias = _bias(node, weights, columns) + added
    weights[node.parameters["kernel"]] = (in_double(kernel) * factors).astype(kernel.dtype)
    return _with_bias(node, weights, bias.astype(kernel.dtype))


def _bias(node: Node, weights: Weights, size: int) -> Vector:
    return in_double(weights[node.parameters["bias"]]) if "bias" in node.parameters else np.zeros(size)


def _with_bias(node: Node, weights: dict[str, Array], bias: Array) -> Node:
    name = f"{node.owner}.bias"
    weights[name] = bias
    layer = node.layer.model_copy(update={"use_bias": True})
    return replace(node, layer=layer, parameters={**node.parameters, "bias": name})
