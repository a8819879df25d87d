"""Layers that join several inputs."""

from __future__ import annotations

from typing import ClassVar, Literal

from unitrain.spec.layers.base import LayerSpec, Shape, ShapeError, show_shape


class Elementwise(LayerSpec):
    """Joins inputs element by element; axes of size 1 stretch, as in NumPy, and ranks must agree."""

    arity: ClassVar[tuple[int, int | None]] = (2, None)

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the common shape."""
        shown = " and ".join(map(show_shape, inputs))
        if len({len(shape) for shape in inputs}) != 1:
            raise ShapeError(f"inputs have different numbers of axes: {shown}")
        result = []
        for extents in zip(*inputs, strict=True):
            wide = {extent for extent in extents if extent != 1}
            if len(wide) > 1:
                raise ShapeError(f"inputs do not fit together: {shown}")
            result.append(max(extents))
        return tuple(result)


class Add(Elementwise):
    """Sum of the inputs."""

    type: Literal["add"] = "add"


class Multiply(Elementwise):
    """Product of the inputs."""

    type: Literal["multiply"] = "multiply"


class OfTwo(Elementwise):
    """Joins exactly two."""

    arity: ClassVar[tuple[int, int | None]] = (2, 2)


class Subtract(OfTwo):
    """The first input less the second."""

    type: Literal["subtract"] = "subtract"


class Divide(OfTwo):
    """The first input by the second; by 0 it is infinite, and 0 / 0 not a number."""

    type: Literal["divide"] = "divide"


class Concatenate(LayerSpec):
    """Join the inputs along one axis, counted without the batch (-1: the channel)."""

    arity: ClassVar[tuple[int, int | None]] = (2, None)
    accepts: ClassVar[Literal["float", "integer", "any"]] = "any"

    type: Literal["concatenate"] = "concatenate"
    axis: int = -1

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the shape with the joined axis summed."""
        rank = len(inputs[0])
        shown = " and ".join(map(show_shape, inputs))
        if not -rank <= self.axis < rank:
            raise ShapeError(f"axis {self.axis} is outside {show_shape(inputs[0])} (batch not counted)")
        axis = self.axis % rank
        rest = {shape[:axis] + shape[axis + 1 :] for shape in inputs}
        if len(rest) != 1 or any(len(shape) != rank for shape in inputs):
            raise ShapeError(f"inputs differ on an axis other than {self.axis}: {shown}")
        return (*inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :])
