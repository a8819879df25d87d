"""Fully connected layers."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from unitrain.spec.initializers import Glorot, Initializer, Zeros
from unitrain.spec.layers.activation import ActivationName
from unitrain.spec.layers.base import (
    LayerSpec,
    Parameter,
    Shape,
    ShapeError,
    bias_parameter,
    kernel_parameter,
)
from unitrain.spec.quantizers import KernelQuantizer


class Dense(LayerSpec):
    """``y = x @ kernel + bias`` over the last axis: ``[batch, ..., in]`` to ``[batch, ..., units]``.

    Parameters: ``kernel`` ``(in, units)``, ``bias`` ``(units,)``.
    """

    type: Literal["dense"] = "dense"
    units: PositiveInt
    use_bias: bool = True
    activation: ActivationName | None = None
    kernel_initializer: Initializer = Glorot()
    kernel_quantizer: KernelQuantizer | None = None
    bias_initializer: Initializer = Zeros()

    def output_shape(self, *inputs: Shape) -> Shape:
        """Replace the last axis by ``units``."""
        if not inputs[0]:
            raise ShapeError("needs an input with at least one axis, (..., in)")
        return (*inputs[0][:-1], self.units)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``kernel`` and, unless ``use_bias`` is false, ``bias``."""
        width = inputs[0][-1]
        shape = (width, self.units)
        table = {"kernel": kernel_parameter(shape, self.kernel_initializer, shape, self.kernel_quantizer)}
        if self.use_bias:
            table["bias"] = bias_parameter(self.units, self.bias_initializer)
        return table

    def macs(self, *inputs: Shape) -> int:
        """One for each weight at each position."""
        macs = self.units
        for extent in inputs[0]:
            macs *= extent
        return macs
