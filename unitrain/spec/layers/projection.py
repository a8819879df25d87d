"""The projection back onto a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import PositiveInt

from unitrain.spec.initializers import Initializer, Uniform, Zeros
from unitrain.spec.layers.base import (
    LayerName,
    LayerSpec,
    Parameter,
    Shape,
    ShapeError,
    bias_parameter,
    kernel_parameter,
)


class TiedProjection(LayerSpec):
    """``y = x @ table^T``: ``[batch, ..., width]`` to ``[batch, ..., units]``, with the table of an embedding.

    Press and Wolf 2017, "Using the output embedding to improve language models": the table gets the gradients of both.

    Parameters
    ----------
    embedding
        The embedding whose table it is, of ``units`` rows; without it the layer has a table of its own.
    units
        Size of the vocabulary.
    use_bias
        A bias of its own.
    """

    ties: ClassVar[Mapping[str, str]] = {"table": "embedding"}

    type: Literal["tied_projection"] = "tied_projection"
    embedding: LayerName | None = None
    units: PositiveInt
    use_bias: bool = False
    table_initializer: Initializer = Uniform()
    bias_initializer: Initializer = Zeros()

    def output_shape(self, *inputs: Shape) -> Shape:
        """Replace the last axis by ``units``."""
        if not inputs[0]:
            raise ShapeError("needs an input with at least one axis, (..., width)")
        return (*inputs[0][:-1], self.units)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``table`` ``(units, width)`` and, with ``use_bias``, ``bias``."""
        shape = (self.units, inputs[0][-1])
        table = {"table": kernel_parameter(shape, self.table_initializer, shape)}
        if self.use_bias:
            table["bias"] = bias_parameter(self.units, self.bias_initializer)
        return table

    def macs(self, *inputs: Shape) -> int:
        """One for each number of the table at each position."""
        macs = self.units
        for extent in inputs[0]:
            macs *= extent
        return macs
