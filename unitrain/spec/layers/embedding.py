"""Embedding tables."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt

from unitrain.spec.initializers import Initializer, Uniform
from unitrain.spec.layers.base import LayerSpec, Parameter, Shape, kernel_parameter


class Embedding(LayerSpec):
    """Look up rows of a table: integers ``[batch, ...]`` to ``[batch, ..., width]``.

    An index outside ``0 .. vocabulary - 1`` is an error. Parameter: ``table`` ``(vocabulary, width)``.
    """

    accepts: ClassVar[Literal["float", "integer", "any"]] = "integer"

    type: Literal["embedding"] = "embedding"
    vocabulary: PositiveInt
    width: PositiveInt
    table_initializer: Initializer = Uniform()

    def output_shape(self, *inputs: Shape) -> Shape:
        """Append the width."""
        return (*inputs[0], self.width)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``table``."""
        shape = (self.vocabulary, self.width)
        return {"table": kernel_parameter(shape, self.table_initializer, shape)}
