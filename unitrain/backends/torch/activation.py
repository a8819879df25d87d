"""Activations. torch's derivatives at kinks are the pinned ones but for hard sigmoid and hard swish."""

from __future__ import annotations

import torch
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, Slot, implements
from unitrain.backends.torch.runtime import widened
from unitrain.backends.torch.window import channels_first, channels_last
from unitrain.graph.node import Node
from unitrain.spec.layers import LayerSpec
from unitrain.spec.layers import activation as spec

# From here on softplus is the identity to the last bit of float64.
_SOFTPLUS_LINEAR = 40.0


class HardSwish(torch.nn.Hardswish):
    """``x * relu6(x + 3) / 6``: torch's own function has the derivatives -0.5 and 1.5 at its kinks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to each element."""
        wide = widened(x)
        return (wide * functional.relu6(wide + 3.0) / 6.0).to(x.dtype)


class HardSigmoid(torch.nn.Hardsigmoid):
    """``relu6(x + 3) / 6``: the backward pass of torch's own function has 1/6 in float32 only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to each element."""
        return (functional.relu6(widened(x) + 3.0) / 6.0).to(x.dtype)


class ChannelsLastPrelu(torch.nn.PReLU):
    """``nn.PReLU`` with the channel on the last axis."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to ``[batch, ..., channel]``."""
        return channels_last(super().forward(channels_first(x)))


@implements(
    spec.Relu,
    spec.Relu6,
    spec.LeakyRelu,
    spec.Elu,
    spec.Selu,
    spec.Gelu,
    spec.Silu,
    spec.Sigmoid,
    spec.HardSigmoid,
    spec.HardSwish,
    spec.Tanh,
    spec.Softplus,
    spec.Softmax,
)
def activation(layer: LayerSpec, node: Node, settings: Settings) -> Made:
    """torch's own modules, with the spec's numbers."""
    module: torch.nn.Module
    match layer:
        case spec.Relu():
            module = torch.nn.ReLU()
        case spec.Relu6():
            module = torch.nn.ReLU6()
        case spec.LeakyRelu(slope=slope):
            module = torch.nn.LeakyReLU(slope)
        case spec.Elu(alpha=alpha):
            module = torch.nn.ELU(alpha)
        case spec.Selu():
            module = torch.nn.SELU()
        case spec.Gelu(approximate=approximate):
            module = torch.nn.GELU(approximate)
        case spec.Silu():
            module = torch.nn.SiLU()
        case spec.Sigmoid():
            module = torch.nn.Sigmoid()
        case spec.HardSigmoid():
            module = HardSigmoid()
        case spec.HardSwish():
            module = HardSwish()
        case spec.Tanh():
            module = torch.nn.Tanh()
        case spec.Softplus():
            module = torch.nn.Softplus(threshold=_SOFTPLUS_LINEAR)
        case spec.Softmax(axis=axis):
            module = torch.nn.Softmax(dim=axis if axis < 0 else axis + 1)
        case _:
            raise AssertionError(layer.type)
    return Made(module, {})


@implements(spec.Prelu)
def prelu(layer: spec.Prelu, node: Node, settings: Settings) -> Made:
    """One slope a channel."""
    return Made(ChannelsLastPrelu(node.input_shapes[0][-1]), {"slope": Slot("weight")})
