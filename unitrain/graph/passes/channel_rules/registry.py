"""Which rule each type of layer has, and what rules are written with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unitrain.graph.node import Node
from unitrain.graph.passes.channels import Axes, Channels, Numbers, Rule, Traced, no_channels
from unitrain.spec import layers as spec

RULES: dict[type[spec.LayerSpec], Rule] = {}


def rule_of(node: Node) -> Rule:
    """Return the rule of a node's layer; of a layer that has none, that nothing may go."""
    return RULES.get(type(node.layer), unknown)


def unknown(channels: Channels, node: Node, inputs: Sequence[Axes]) -> Traced:
    """Keep everything that is read and given."""
    keep(channels, node, *(axis for axes in inputs for axis in axes))
    shapes = {local: parameter.shape for local, parameter in node.layer.parameters(*node.input_shapes).items()}
    return Traced(no_channels(*node.output_shape), {local: no_channels(*shape) for local, shape in shapes.items()})


def rule(*types: type[spec.LayerSpec]) -> Callable[[Rule], Rule]:
    """Register the rule of some types of layers."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(types, rule))
        return rule

    return register


def keep(channels: Channels, node: Node, *axes: Numbers, why: str = "mixes them without weights") -> None:
    """Let nothing of some axes go, and remember why."""
    for axis in axes:
        channels.keep(axis, f"{node.layer.type} '{node.name}' {why}")


def affine(node: Node, numbers: Numbers) -> dict[str, Axes]:
    """Return the axes of parameters that are vectors, one number a channel."""
    return dict.fromkeys(node.parameters, (numbers,))


def with_bias(node: Node, parameters: dict[str, Axes], made: Numbers) -> dict[str, Axes]:
    """Return the axes of parameters, with those of the bias where the layer has one."""
    return {**parameters, "bias": (made,)} if "bias" in node.parameters else parameters
