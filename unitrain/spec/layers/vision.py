"""Parts of vision models: a scale for each channel, a token in front of the patches."""

from __future__ import annotations

from typing import Literal

from unitrain.spec.initializers import Constant, Initializer, Zeros
from unitrain.spec.layers.base import LayerSpec, Parameter, Shape, ShapeError, require_rank, scale_parameter


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
