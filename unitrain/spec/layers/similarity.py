"""How alike two vectors are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unitrain.spec.layers.base import Shape, ShapeError, show_shape
from unitrain.spec.layers.merge import OfTwo


class Dot(OfTwo):
    """Inner products of the vectors on the last axis: ``y = sum(a * b)``; the axes before stretch as in `Add`."""

    type: Literal["dot"] = "dot"
    keep_axis: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        """Leave the last axis out, or keep it with one position."""
        wide = super().output_shape(*inputs)
        if not wide or inputs[0][-1] != inputs[1][-1]:
            raise ShapeError(f"needs vectors of one size on the last axis: {' and '.join(map(show_shape, inputs))}")
        return (*wide[:-1], 1) if self.keep_axis else wide[:-1]


class Cosine(Dot):
    """Cosines of the angles between vectors: ``y = sum(a * b) / (|a| |b|)``, no norm taken below ``epsilon``.

    The derivative of a norm that is below is 0.
    """

    type: Literal["cosine"] = "cosine"  # type: ignore[assignment]  # another word
    # Its square is a number of float32.
    epsilon: Annotated[float, Field(ge=1e-12, allow_inf_nan=False)] = 1e-8
