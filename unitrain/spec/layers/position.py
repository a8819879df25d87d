"""Where a token stands in its sequence, added to what it is."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from unitrain.spec.initializers import Initializer, Normal
from unitrain.spec.layers.base import LayerSpec, Parameter, Shape, ShapeError, kernel_parameter, require_rank


class PositionEmbedding(LayerSpec):
    """``y[p] = x[p] + table[p]``, a learned row for each position: ``[length, channel]`` keeps its shape.

    Parameter: ``table`` ``(max_length, channel)``; ``max_length`` is by default the length.
    """

    type: Literal["position_embedding"] = "position_embedding"
    max_length: PositiveInt | None = None
    table_initializer: Initializer = Normal(stddev=0.02)

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        require_rank(inputs[0], 2, "(length, channel)")
        if self.max_length is not None and inputs[0][0] > self.max_length:
            raise ShapeError(f"has {self.max_length} positions, and the input {inputs[0][0]}")
        return inputs[0]

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``table``."""
        shape = (self.max_length or inputs[0][0], inputs[0][1])
        return {"table": kernel_parameter(shape, self.table_initializer, shape)}


class SinusoidalPosition(LayerSpec):
    """``y[p] = x[p] + wave[p]``, sines and cosines of falling frequency (Vaswani et al. 2017, section 3.5).

    Parameters
    ----------
    base
        Pair i of the channels has the angle ``p * base ** (-2 i / channel)``.
    layout
        ``interleaved``: sine and cosine of a pair side by side, as in the paper; ``half``: all sines, then all
        cosines.
    """

    type: Literal["sinusoidal_position"] = "sinusoidal_position"
    base: PositiveFloat = 10000.0
    layout: Literal["interleaved", "half"] = "interleaved"

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape; the channels must be even."""
        require_rank(inputs[0], 2, "(length, channel)")
        if inputs[0][1] % 2:
            raise ShapeError(f"needs an even number of channels, a sine and a cosine each, and got {inputs[0][1]}")
        return inputs[0]
