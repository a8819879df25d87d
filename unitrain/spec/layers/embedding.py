"""Embedding tables."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt

from unitrain.spec.initializers import Initializer, Uniform
from unitrain.spec.layers.base import LayerSpec, Parameter, Shape, ShapeError, kernel_parameter


class Embedding(LayerSpec):
    """Look up rows of a table: integers ``[batch, ...]`` to ``[batch, ..., width]``.

    An index outside ``0 .. vocabulary - 1`` is an error. With ``table_per_position`` each position of the last axis has
    a table of its own, as the category columns of a row want it, all of them with ``vocabulary`` rows. Parameter:
    ``table`` ``(vocabulary, width)``, or the tables one below the other, ``(positions * vocabulary, width)``.
    """

    accepts: ClassVar[Literal["float", "integer", "any"]] = "integer"

    type: Literal["embedding"] = "embedding"
    vocabulary: PositiveInt
    width: PositiveInt
    table_per_position: bool = False
    table_initializer: Initializer = Uniform()

    def output_shape(self, *inputs: Shape) -> Shape:
        """Append the width."""
        if self.table_per_position and not inputs[0]:
            raise ShapeError("needs an input with at least one axis for a table per position")
        return (*inputs[0], self.width)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``table``."""
        shape = (self.vocabulary * self.tables(*inputs), self.width)
        return {"table": kernel_parameter(shape, self.table_initializer, (self.vocabulary, self.width))}

    def tables(self, *inputs: Shape) -> int:
        """Count the tables."""
        return inputs[0][-1] if self.table_per_position else 1
