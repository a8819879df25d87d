"""Arithmetic with constants, and products of matrices."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import FiniteFloat

from unitrain.spec.layers.base import LayerSpec, Shape, ShapeError, show_shape


class _Plain(LayerSpec):
    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        return inputs[0]


class Scale(_Plain):
    """``y = factor * x``, with a factor that is not learned."""

    type: Literal["scale"] = "scale"
    factor: FiniteFloat


class Shift(_Plain):
    """``y = x + amount``, with an amount that is not learned."""

    type: Literal["shift"] = "shift"
    amount: FiniteFloat


class Power(_Plain):
    """``y = x ** exponent``; of a negative number with a broken exponent it is not a number."""

    type: Literal["power"] = "power"
    exponent: FiniteFloat


class Matmul(LayerSpec):
    """Products of matrices: ``[..., m, k]`` and ``[..., k, n]`` to ``[..., m, n]``; leading axes agree.

    With ``transpose_second`` the second is ``[..., n, k]``.
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    type: Literal["matmul"] = "matmul"
    transpose_second: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return rows of the first and columns of the second."""
        first, second = inputs
        shown = " and ".join(map(show_shape, inputs))
        if len(first) < 2 or len(first) != len(second) or first[:-2] != second[:-2]:
            raise ShapeError(f"needs two matrices, with equal axes before them: {shown}")
        inner, columns = reversed(second[-2:]) if self.transpose_second else second[-2:]
        if first[-1] != inner:
            raise ShapeError(f"inputs do not fit together: {shown}")
        return (*first[:-1], columns)

    def macs(self, *inputs: Shape) -> int:
        """One for each product of two numbers."""
        macs = inputs[0][-1]
        for extent in self.output_shape(*inputs):
            macs *= extent
        return macs
