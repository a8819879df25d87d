"""Parts of vision models."""

from __future__ import annotations

import torch
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.torch.activation import HardSigmoid
from unitrain.backends.torch.conv import KERNEL
from unitrain.backends.torch.dense import LINEAR
from unitrain.backends.torch.registry import Made, Slot, implements, weight_and_bias
from unitrain.backends.torch.runtime import widened
from unitrain.backends.torch.window import channels_first
from unitrain.graph.node import Node
from unitrain.spec.layers.vision import ClassToken, LayerScale, PatchEmbedding, SqueezeExcite


class ChannelScale(torch.nn.Module):
    """Multiplies each channel by a learned factor, in float32 where the numbers have 16 bits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale ``[batch, ..., channel]``."""
        return (widened(x) * widened(self.weight)).to(x.dtype)


class LeadingToken(torch.nn.Module):
    """Puts a learned token before a sequence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Join ``[batch, 1, width]`` and ``[batch, length, width]``."""
        return torch.cat([self.token.expand(x.shape[0], 1, -1), x], dim=1)


class PatchProjection(torch.nn.Conv2d):
    """``nn.Conv2d`` over patches of ``[batch, height, width, channel]``, whose results are a sequence."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed ``[batch, height, width, channel]`` as ``[batch, patches, width]``."""
        y: torch.Tensor = functional.conv2d(channels_first(x), self.weight, self.bias, self.stride)
        return y.flatten(2).transpose(1, 2)


class ChannelGates(torch.nn.Module):
    """Squeeze and excitation: gates for the channels from their means, by ``reduce`` and ``expand``."""

    def __init__(self, layer: SqueezeExcite, channels: int) -> None:
        super().__init__()
        self.reduce = torch.nn.Linear(channels, layer.reduced)
        self.inner = torch.nn.ReLU() if layer.inner == "relu" else torch.nn.SiLU()
        self.expand = torch.nn.Linear(layer.reduced, channels)
        self.gate = torch.nn.Sigmoid() if layer.gate == "sigmoid" else HardSigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale ``[batch, *spatial, channel]``."""
        gates: torch.Tensor = self.gate(self.expand(self.inner(self.reduce(x.flatten(1, -2).mean(dim=1)))))
        return x * gates.reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])


@implements(LayerScale)
def layer_scale(layer: LayerScale, node: Node, settings: Settings) -> Made:
    """torch has none."""
    return Made(ChannelScale(node.input_shapes[0][-1]), {"scale": Slot("weight")})


@implements(ClassToken)
def class_token(layer: ClassToken, node: Node, settings: Settings) -> Made:
    """One token for all samples."""
    return Made(LeadingToken(node.input_shapes[0][-1]), {"token": Slot("token")})


@implements(PatchEmbedding)
def patch_embedding(layer: PatchEmbedding, node: Node, settings: Settings) -> Made:
    """torch's convolution, its positions flattened."""
    module = PatchProjection(node.input_shapes[0][-1], layer.width, layer.patch, layer.patch, bias=layer.use_bias)
    return Made(module, weight_and_bias(KERNEL[2], layer.use_bias))


@implements(SqueezeExcite)
def squeeze_excite(layer: SqueezeExcite, node: Node, settings: Settings) -> Made:
    """Both dense layers as submodules."""
    slots: dict[str, Slot] = {}
    for part in ("reduce", "expand"):
        slots |= {f"{part}_kernel": Slot(f"{part}.weight", LINEAR), f"{part}_bias": Slot(f"{part}.bias")}
    return Made(ChannelGates(layer, node.input_shapes[0][-1]), slots)
