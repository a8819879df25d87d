"""Layers that give an image another size."""

from __future__ import annotations

from math import floor
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PositiveFloat, PositiveInt, model_validator

from unitrain.spec.layers.base import LayerSpec, Pair, Shape, ShapeError, require_rank, show_shape


def _as_factors(value: Any) -> Any:
    return (value, value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Factors = Annotated[
    tuple[PositiveFloat, PositiveFloat],
    BeforeValidator(_as_factors, json_schema_input_type=PositiveFloat | tuple[PositiveFloat, PositiveFloat]),
]


def nearest_sources(size: int, outputs: int) -> list[int]:
    """Return, for each element of a resized axis, the one it is copied from: floor((i + 1/2) * size / outputs)."""
    return [(2 * i + 1) * size // (2 * outputs) for i in range(outputs)]


def linear_sources(size: int, outputs: int) -> tuple[list[int], list[int], list[float]]:
    """Return, for each element of a resized axis, the two it lies between, and the share of the second.

    Element i lies at (i + 1/2) * size / outputs - 1/2; beyond an end stands the end element.
    """
    places = [divmod((2 * i + 1) * size - outputs, 2 * outputs) for i in range(outputs)]
    below = [min(max(place, 0), size - 1) for place, _ in places]
    above = [min(max(place + 1, 0), size - 1) for place, _ in places]
    return below, above, [rest / (2 * outputs) for _, rest in places]


class Resize(LayerSpec):
    """Give an image ``[batch, height, width, channel]`` another height and width, larger or smaller.

    Either ``size`` states them, or ``factor`` how they grow, rounded down. Centres of pixels are at half numbers:
    output i lies at (i + 1/2) * in / out - 1/2 of the input. ``nearest`` takes pixel floor((i + 1/2) * in / out);
    ``bilinear`` interpolates between the two nearest on each axis, edges clamped. Nothing is smoothed before (no
    antialiasing).
    """

    type: Literal["resize"] = "resize"
    size: Pair | None = None
    factor: Factors | None = None
    interpolation: Literal["nearest", "bilinear"] = "nearest"

    @model_validator(mode="after")
    def _one_of_both(self) -> Resize:
        if (self.size is None) == (self.factor is None):
            raise ValueError("state either size or factor")
        return self

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(height, width, channel)``, the first two as stated."""
        require_rank(inputs[0], 3, "(height, width, channel)")
        if self.size is not None:
            return (*self.size, inputs[0][-1])
        assert self.factor is not None
        # A product such as 100 * 0.29 is meant to be 29.
        sides = [floor(round(extent * times, 9)) for extent, times in zip(inputs[0], self.factor, strict=False)]
        if min(sides) < 1:
            raise ShapeError(f"factor {list(self.factor)} leaves nothing of {show_shape(inputs[0])}")
        return (*sides, inputs[0][-1])


class PixelShuffle(LayerSpec):
    """Arrange runs of channels as squares of pixels (Shi et al. 2016, sub-pixel convolution, equation 4).

    ``[batch, height, width, channel * factor^2]`` to ``[batch, height * factor, width * factor, channel]``: input
    channel ``(c * factor + i) * factor + j`` becomes channel c of row i and column j of the square, the order of
    torch's ``PixelShuffle``; TensorFlow's ``depth_to_space`` has c last instead.
    """

    type: Literal["pixel_shuffle"] = "pixel_shuffle"
    factor: PositiveInt = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(height * factor, width * factor, channel / factor^2)``."""
        require_rank(inputs[0], 3, "(height, width, channel)")
        height, width, channels = inputs[0]
        if channels % self.factor**2:
            raise ShapeError(f"factor {self.factor} squared does not divide the channels of {show_shape(inputs[0])}")
        return (height * self.factor, width * self.factor, channels // self.factor**2)


class PixelUnshuffle(LayerSpec):
    """Arrange squares of pixels as runs of channels: undoes `PixelShuffle`, as torch's ``PixelUnshuffle``."""

    type: Literal["pixel_unshuffle"] = "pixel_unshuffle"
    factor: PositiveInt = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(height / factor, width / factor, channel * factor^2)``."""
        require_rank(inputs[0], 3, "(height, width, channel)")
        height, width, channels = inputs[0]
        if height % self.factor or width % self.factor:
            raise ShapeError(f"factor {self.factor} does not divide height and width of {show_shape(inputs[0])}")
        return (height // self.factor, width // self.factor, channels * self.factor**2)
