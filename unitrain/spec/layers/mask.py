"""Masks: integers that say which positions count (1) and which do not (0)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from unitrain.spec.layers.base import LayerSpec, Shape, ShapeError, ValueType, show_shape


class PaddingMask(LayerSpec):
    """1 where a token is another than ``padding``, 0 where it is padding: integers in the shape of the input."""

    accepts: ClassVar[Literal["float", "integer", "any"]] = "integer"
    gives: ClassVar[ValueType | None] = "integer"

    type: Literal["padding_mask"] = "padding_mask"
    padding: Annotated[int, Field(ge=-(2**31), lt=2**31)] = 0

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        return inputs[0]


class LengthMask(LayerSpec):
    """1 at as many of the first positions as a sample is long, then 0: integers ``[]`` or ``[1]`` to ``[length]``.

    A sample of 0 steps or fewer has no 1, and one of ``length`` or more no 0.
    """

    accepts: ClassVar[Literal["float", "integer", "any"]] = "integer"
    gives: ClassVar[ValueType | None] = "integer"

    type: Literal["length_mask"] = "length_mask"
    length: PositiveInt

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the length."""
        if inputs[0] not in ((), (1,)):
            raise ShapeError(f"needs one number a sample, [batch] or [batch, 1], and got {show_shape(inputs[0])}")
        return (self.length,)
