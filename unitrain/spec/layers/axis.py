"""Layers along one axis: taking parts of it, making a new one, reducing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from unitrain.spec.layers.base import InputNames, LayerSpec, Shape, ShapeError, ValueType, Wanted, show_shape


def counted(axis: int, rank: int, shape: Shape) -> int:
    """Return an axis counted from the front, without the batch, of ``rank``. Raises `ShapeError` outside ``shape``."""
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} is outside {show_shape(shape)} (batch not counted)")
    return axis % rank


class Slice(LayerSpec):
    """Part of an axis: positions ``start``, ``start + step`` ... before ``stop``, as Python slices.

    Parameters
    ----------
    axis
        Counted without the batch; negative from the end.
    start, stop
        Negative from the end; ``stop`` null is the end.
    step
        Distance of the positions.
    """

    accepts: ClassVar[Literal["float", "integer", "any"]] = "any"

    type: Literal["slice"] = "slice"
    axis: int = 0
    start: int = 0
    stop: int | None = None
    step: PositiveInt = 1

    def positions(self, shape: Shape) -> range:
        """Return the positions that are taken."""
        size = shape[counted(self.axis, len(shape), shape)]
        return range(size)[self.start : self.stop : self.step]

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the shape with fewer positions."""
        (shape,) = inputs
        axis = counted(self.axis, len(shape), shape)
        if not self.positions(shape):
            raise ShapeError(f"takes nothing of axis {self.axis} of {show_shape(shape)}")
        return (*shape[:axis], len(self.positions(shape)), *shape[axis + 1 :])


class Split(LayerSpec):
    """One part of an axis, counted from 0; the others are layers of their own.

    Parameters
    ----------
    axis
        Counted without the batch; negative from the end.
    parts
        How many equal parts there are.
    sizes
        Sizes of the parts, where they are not equal, in the place of ``parts``.
    part
        Which of them.
    """

    accepts: ClassVar[Literal["float", "integer", "any"]] = "any"

    type: Literal["split"] = "split"
    axis: int = -1
    parts: PositiveInt = 2
    sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    part: NonNegativeInt

    @model_validator(mode="after")
    def _part_exists(self) -> Self:
        if self.sizes is not None and "parts" in self.model_fields_set:
            raise ValueError("set parts, for equal ones, or sizes")
        count = self.parts if self.sizes is None else len(self.sizes)
        if self.part >= count:
            raise ValueError(f"part {self.part} of {count}: the last is {count - 1}")
        return self

    def positions(self, shape: Shape) -> range:
        """Return the positions that are taken."""
        size = shape[counted(self.axis, len(shape), shape)]
        sizes = self.sizes or (size // self.parts,) * self.parts
        start = sum(sizes[: self.part])
        return range(start, start + sizes[self.part])

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the shape with the part's size."""
        (shape,) = inputs
        axis = counted(self.axis, len(shape), shape)
        if self.sizes is None and shape[axis] % self.parts:
            raise ShapeError(f"divides axis {self.axis} of {show_shape(shape)} into {self.parts} equal parts")
        if self.sizes is not None and shape[axis] != sum(self.sizes):
            raise ShapeError(
                f"divides axis {self.axis} of {show_shape(shape)} into parts of {sum(self.sizes)} positions in all"
            )
        return (*shape[:axis], len(self.positions(shape)), *shape[axis + 1 :])


class Select(LayerSpec):
    """One position of an axis, which is left out: ``index: 0`` of a sequence is its first token."""

    accepts: ClassVar[Literal["float", "integer", "any"]] = "any"

    type: Literal["select"] = "select"
    axis: int = 0
    index: int = 0

    def output_shape(self, *inputs: Shape) -> Shape:
        """Leave the axis out."""
        (shape,) = inputs
        axis = counted(self.axis, len(shape), shape)
        if not -shape[axis] <= self.index < shape[axis]:
            raise ShapeError(f"takes position {self.index} of axis {self.axis}, which has {shape[axis]}")
        return (*shape[:axis], *shape[axis + 1 :])


class Gather(LayerSpec):
    """Positions of the first axis by their numbers: ``[length, ...]`` and indices ``[count]`` to ``[count, ...]``.

    Parameters
    ----------
    indices
        Integers, counted from 0; one outside ``0 .. length - 1`` is an error.
    """

    accepts: ClassVar[Literal["float", "integer", "any"]] = "any"
    side_inputs: ClassVar[Mapping[str, ValueType]] = {"indices": "integer"}

    type: Literal["gather"] = "gather"
    indices: InputNames

    def side_shapes(self, *inputs: Shape) -> dict[str, tuple[Wanted, ...]]:
        """Return any count."""
        return {"indices": ((None,),)}

    def output_shape(self, *inputs: Shape) -> Shape:
        """Put the count for the length."""
        shape, indices = inputs
        if not shape:
            raise ShapeError(f"needs an input with an axis, and got {show_shape(shape)}")
        return (*indices, *shape[1:])


class Stack(LayerSpec):
    """Put inputs of one shape side by side along a new axis, counted in the result without the batch."""

    arity: ClassVar[tuple[int, int | None]] = (2, None)
    accepts: ClassVar[Literal["float", "integer", "any"]] = "any"

    type: Literal["stack"] = "stack"
    axis: int = 0

    def output_shape(self, *inputs: Shape) -> Shape:
        """Insert the number of inputs."""
        if len(set(inputs)) != 1:
            raise ShapeError(f"needs inputs of one shape: {' and '.join(map(show_shape, inputs))}")
        (shape,) = set(inputs)
        axis = counted(self.axis, len(shape) + 1, (*shape, len(inputs)))
        return (*shape[:axis], len(inputs), *shape[axis:])


class Reduction(LayerSpec):
    """Reduces one axis, counted without the batch."""

    axis: int = 0
    keep_axis: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        """Leave the axis out, or keep it with one position."""
        shape = inputs[0]
        axis = counted(self.axis, len(shape), shape)
        return (*shape[:axis], *((1,) if self.keep_axis else ()), *shape[axis + 1 :])


class MaskedReduction(Reduction):
    """A reduction that may leave positions out.

    Parameters
    ----------
    mask
        Integers ``[positions of the axis]``: 1 counts, 0 does not. Where none counts the result is 0.
    """

    side_inputs: ClassVar[Mapping[str, ValueType]] = {"mask": "integer"}

    mask: InputNames | None = None

    def side_shapes(self, *inputs: Shape) -> dict[str, tuple[Wanted, ...]]:
        """Return the length of the axis."""
        return {"mask": ((inputs[0][counted(self.axis, len(inputs[0]), inputs[0])],),)}

    def mask_view(self, shape: Shape) -> Shape:
        """Return the shape in which a mask stretches over an input of ``shape``, both without the batch."""
        axis = counted(self.axis, len(shape), shape)
        return tuple(extent if place == axis else 1 for place, extent in enumerate(shape))


class Sum(Reduction):
    """Sum over an axis."""

    type: Literal["sum"] = "sum"


class Mean(MaskedReduction):
    """Mean over an axis, of the positions that the mask leaves."""

    type: Literal["mean"] = "mean"


class Maximum(MaskedReduction):
    """Largest element along an axis, of the positions that the mask leaves; of equals the first gets the gradient."""

    type: Literal["max"] = "max"
