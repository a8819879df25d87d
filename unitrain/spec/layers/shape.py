"""Layers that move elements and compute nothing."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt

from unitrain.spec.layers.base import LayerSpec, Pair, Shape, ShapeError, require_rank, show_shape
from unitrain.spec.layers.conv import SidePads, Single

Kind = Literal["float", "integer", "any"]


class Flatten(LayerSpec):
    """All axes but the batch into one, last axis fastest (NHWC order for images)."""

    accepts: ClassVar[Kind] = "any"
    type: Literal["flatten"] = "flatten"

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(product of the axes,)``."""
        return (prod(inputs[0]),)


class Reshape(LayerSpec):
    """Give the elements another shape, batch left out; one axis may be -1."""

    accepts: ClassVar[Kind] = "any"
    type: Literal["reshape"] = "reshape"
    shape: Annotated[tuple[int, ...], Field(min_length=1)]

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the new shape with -1 worked out."""
        size = prod(inputs[0])
        free = [axis for axis, extent in enumerate(self.shape) if extent == -1]
        known = prod(extent for extent in self.shape if extent != -1)
        if len(free) > 1 or known < 1 or any(extent < 1 and extent != -1 for extent in self.shape):
            raise ShapeError(f"shape {list(self.shape)} must be positive numbers, with -1 at most once")
        if (size % known) if free else size != known:
            raise ShapeError(f"{size} elements of {show_shape(inputs[0])} do not fit {show_shape(self.shape)}")
        return tuple(size // known if extent == -1 else extent for extent in self.shape)


class Permute(LayerSpec):
    """Reorder the axes: output axis ``i`` is input axis ``axes[i]``, counted from 0, batch left out."""

    accepts: ClassVar[Kind] = "any"
    type: Literal["permute"] = "permute"
    axes: tuple[NonNegativeInt, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the reordered shape."""
        if sorted(self.axes) != list(range(len(inputs[0]))):
            raise ShapeError(
                f"axes {list(self.axes)} are not a reordering of the {len(inputs[0])} axes of "
                f"{show_shape(inputs[0])} (batch not counted)"
            )
        return tuple(inputs[0][axis] for axis in self.axes)


def _as_amounts(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple((part, part) if isinstance(part, int) else part for part in value)
    return value


class Padding(LayerSpec):
    """Add elements at the ends of the leading axes: ``[[top, bottom], [left, right]]`` for an image.

    ``constant`` fills with ``value``; ``reflect`` mirrors without repeating the edge; ``edge`` repeats it.
    """

    type: Literal["padding"] = "padding"
    amounts: Annotated[
        tuple[SidePads, ...],
        Field(min_length=1),
        BeforeValidator(
            _as_amounts,
            json_schema_input_type=Annotated[list[NonNegativeInt | SidePads], Field(min_length=1)],
        ),
    ]
    mode: Literal["constant", "reflect", "edge"] = "constant"
    value: float = 0.0

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the padded shape; axes after those named keep their size."""
        shape = inputs[0]
        if len(self.amounts) > len(shape):
            raise ShapeError(f"amounts for {len(self.amounts)} axes do not fit {show_shape(shape)}")
        for extent, pads in zip(shape, self.amounts, strict=False):
            if self.mode == "reflect" and max(pads) >= extent:
                raise ShapeError(f"reflect by {max(pads)} needs more than {extent} elements, {show_shape(shape)}")
        padded = tuple(extent + sum(pads) for extent, pads in zip(shape, self.amounts, strict=False))
        return (*padded, *shape[len(padded) :])

    def all_amounts(self, rank: int) -> tuple[tuple[int, int], ...]:
        """Return (before, after) for each of ``rank`` axes, batch left out."""
        return (*self.amounts, *((0, 0),) * (rank - len(self.amounts)))


class Upsample1d(LayerSpec):
    """Repeat each step ``factor`` times: ``[batch, length, channel]``."""

    type: Literal["upsample1d"] = "upsample1d"
    factor: Single = (2,)

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(length * factor, channel)``."""
        require_rank(inputs[0], 2, "(length, channel)")
        return (inputs[0][0] * self.factor[0], inputs[0][1])


class Upsample2d(LayerSpec):
    """Enlarge an image by a whole factor: ``[batch, height, width, channel]``.

    ``nearest`` repeats each pixel; ``bilinear`` interpolates with half-pixel centres, edges clamped.
    """

    type: Literal["upsample2d"] = "upsample2d"
    factor: Pair = (2, 2)
    interpolation: Literal["nearest", "bilinear"] = "nearest"

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(height * factor, width * factor, channel)``."""
        require_rank(inputs[0], 3, "(height, width, channel)")
        height, width, channels = inputs[0]
        return (height * self.factor[0], width * self.factor[1], channels)
