"""Parts of vision models: patches and a token before them, scales and gates of channels."""

from __future__ import annotations

from math import prod
from typing import Literal

from pydantic import PositiveInt

from unitrain.spec.initializers import Constant, Glorot, Initializer, Zeros
from unitrain.spec.layers.base import (
    LayerSpec,
    Pair,
    Parameter,
    Shape,
    ShapeError,
    bias_parameter,
    kernel_parameter,
    require_rank,
    scale_parameter,
    show_shape,
)


class LayerScale(LayerSpec):
    """Multiply each channel by a learned factor, which starts at ``value`` (Touvron et al. 2021, CaiT, section 2).

    It stands at the end of a residual branch, which so starts near 0. Parameter: ``scale`` ``(channel,)``.
    """

    type: Literal["layer_scale"] = "layer_scale"
    value: float = 1e-5

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        if not inputs[0]:
            raise ShapeError("needs an input with a channel axis")
        return inputs[0]

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``scale``, one a channel, without decay."""
        return {"scale": scale_parameter(inputs[0][-1], Constant(value=self.value))}


class ClassToken(LayerSpec):
    """Put a learned token before a sequence: ``[batch, length, width]`` to ``[batch, length + 1, width]``.

    What is read from it at the end stands for the whole (Devlin et al. 2019, BERT; Dosovitskiy et al. 2021, ViT,
    equation 1). Parameter: ``token`` ``(width,)``.
    """

    type: Literal["class_token"] = "class_token"
    token_initializer: Initializer = Zeros()

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(length + 1, width)``."""
        require_rank(inputs[0], 2, "(length, width)")
        length, width = inputs[0]
        return (length + 1, width)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``token``, without decay."""
        width = inputs[0][-1]
        return {"token": Parameter((width,), self.token_initializer, (width, width))}


class PatchEmbedding(LayerSpec):
    """Cut an image into patches, row by row, and map each to a token (Dosovitskiy et al. 2021, ViT, equation 1).

    ``[batch, height, width, channel]`` to ``[batch, patches, width]``. The same as a convolution whose windows are as
    large as its strides, and its positions flattened. Parameters: ``kernel`` ``(*patch, channel, width)`` and ``bias``
    ``(width,)``.
    """

    type: Literal["patch_embedding"] = "patch_embedding"
    patch: Pair
    width: PositiveInt
    use_bias: bool = True
    kernel_initializer: Initializer = Glorot()
    bias_initializer: Initializer = Zeros()

    def grid(self, shape: Shape) -> tuple[int, int]:
        """Return how many patches there are below and beside each other."""
        require_rank(shape, 3, "(height, width, channel)")
        if shape[0] % self.patch[0] or shape[1] % self.patch[1]:
            raise ShapeError(f"patch {list(self.patch)} does not divide height and width of {show_shape(shape)}")
        return shape[0] // self.patch[0], shape[1] // self.patch[1]

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(patches, width)``."""
        return (prod(self.grid(inputs[0])), self.width)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``kernel`` and ``bias``."""
        channels, area = inputs[0][-1], prod(self.patch)
        fans = (area * channels, area * self.width)
        table = {"kernel": kernel_parameter((*self.patch, channels, self.width), self.kernel_initializer, fans)}
        if self.use_bias:
            table["bias"] = bias_parameter(self.width, self.bias_initializer)
        return table

    def macs(self, *inputs: Shape) -> int:
        """Every element of the image times the width."""
        return prod(inputs[0]) * self.width


class SqueezeExcite(LayerSpec):
    """Multiply each channel by a gate, computed from the means of all channels (Hu et al. 2018, section 3).

    ``y = x * gate(inner(mean(x) R + r) E + e)``, the mean over all positions; the paper has ReLU and sigmoid,
    EfficientNet SiLU and sigmoid, MobileNetV3 ReLU and hard sigmoid. Parameters: ``reduce_kernel``
    ``(channel, reduced)``, ``reduce_bias``, ``expand_kernel`` ``(reduced, channel)``, ``expand_bias``.
    """

    type: Literal["squeeze_excite"] = "squeeze_excite"
    reduced: PositiveInt
    inner: Literal["relu", "silu"] = "relu"
    gate: Literal["sigmoid", "hard_sigmoid"] = "sigmoid"
    kernel_initializer: Initializer = Glorot()
    bias_initializer: Initializer = Zeros()

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        if len(inputs[0]) < 2:
            raise ShapeError(f"needs spatial axes before the channel, and got {show_shape(inputs[0])}")
        return inputs[0]

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """Kernel and bias of both dense layers."""
        channels, reduced = inputs[0][-1], self.reduced
        return {
            "reduce_kernel": kernel_parameter((channels, reduced), self.kernel_initializer, (channels, reduced)),
            "reduce_bias": bias_parameter(reduced, self.bias_initializer),
            "expand_kernel": kernel_parameter((reduced, channels), self.kernel_initializer, (reduced, channels)),
            "expand_bias": bias_parameter(channels, self.bias_initializer),
        }

    def macs(self, *inputs: Shape) -> int:
        """Both products, and the gates."""
        return 2 * inputs[0][-1] * self.reduced + prod(inputs[0])
