"""Numbers rounded to few levels while training, as integer arithmetic will have them."""

from __future__ import annotations

from math import prod
from typing import Literal, Self

from pydantic import model_validator

from unitrain.spec.initializers import Constant, Initializer, Zeros
from unitrain.spec.layers.base import LayerSpec, Parameter, Shape, ShapeError
from unitrain.spec.layers.norm import Fraction
from unitrain.spec.quantizers import Bits, kernel_levels


class FakeQuantize(LayerSpec):
    """Round to ``2^bits`` levels: ``y = (clip(round(x / s) + z, least, most) - z) s`` (Jacob et al. 2018, section 3.1).

    Rounding is half to even. Levels are 0 to L = 2^bits - 1, ``s = (high - low) / L`` and ``z = round(-low / s)``, so
    that 0 is one of the values; a range that leaves 0 out is widened to it. ``symmetric``: levels are -M to
    M = 2^(bits-1) - 1, z = 0 and ``s = max(-low, high) / M``. Where all of a range is 0, s is 1. The
    gradient by x is that by y where ``round(x / s) + z`` is one of the levels, else 0 (straight through).

    ``range`` says where low and high come from:

    - ``[low, high]``: given.
    - ``moving_average``: the least and the largest value of the batch move the untrained ``running_low`` and
      ``running_high`` as batch norm's statistics are moved, ``running = momentum * running + (1 - momentum) * batch``;
      in training the moved ones count already. While both are 0 they become the batch's.
    - ``learned``: the parameter ``scale`` is s, of which the size counts, and z is 0: for values of one sign unless
      ``symmetric``. Its gradient, ``round(v) - v`` with v = x / s inside and the nearest level outside, is divided by
      sqrt(n most), n being the numbers of a sample for each scale (Esser et al. 2020, LSQ, section 2).

    Parameters: those named, each ``(1,)``, or ``(channel,)`` with ``per_channel``, one for each channel.
    """

    type: Literal["fake_quantize"] = "fake_quantize"
    bits: Bits = 8
    range: Literal["moving_average", "learned"] | tuple[float, float] = "moving_average"
    symmetric: bool = False
    per_channel: bool = False
    momentum: Fraction = 0.9
    scale_initializer: Initializer = Constant(value=0.025)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if isinstance(self.range, tuple) and not self.range[0] < self.range[1]:
            raise ValueError(f"the range {list(self.range)} must begin below its end")
        return self

    @property
    def levels(self) -> tuple[int, int]:
        """The least level and the largest."""
        return kernel_levels(self.bits) if self.symmetric else (0, 2**self.bits - 1)

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        if not inputs[0]:
            raise ShapeError("needs an input with a channel axis")
        return inputs[0]

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """The running range, or the learned scale, or nothing."""
        shape = (inputs[0][-1],) if self.per_channel else (1,)
        if self.range == "learned":
            return {"scale": Parameter(shape, self.scale_initializer)}
        if self.range == "moving_average":
            return {
                "running_low": Parameter(shape, Zeros(), trainable=False),
                "running_high": Parameter(shape, Zeros(), trainable=False),
            }
        return {}

    def gradient_factor(self, shape: Shape) -> float:
        """Return what the gradient by a learned scale is multiplied by, for an input of ``shape``, batch left out."""
        numbers = prod(shape[:-1]) if self.per_channel else prod(shape)
        return float((numbers * self.levels[1]) ** -0.5)
