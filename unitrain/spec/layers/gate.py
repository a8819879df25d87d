"""Gated linear units."""

from __future__ import annotations

from typing import Literal

from unitrain.spec.layers.base import LayerSpec, Shape, ShapeError, show_shape


class Glu(LayerSpec):
    """``y = a * gate(b)``, a and b the first and the second half of the last axis.

    With ``sigmoid`` the unit of Dauphin et al. 2017, section 2; with ``identity``, ``relu``, ``gelu`` and ``silu`` the
    bilinear unit, ReGLU, GEGLU and SwiGLU of Shazeer 2020, section 2. A dense layer before it has the columns of the
    values first, then those of the gates.
    """

    type: Literal["glu"] = "glu"
    gate: Literal["sigmoid", "silu", "gelu", "relu", "identity"] = "sigmoid"

    def output_shape(self, *inputs: Shape) -> Shape:
        """Halve the last axis."""
        (shape,) = inputs
        if not shape or shape[-1] % 2:
            raise ShapeError(f"needs a last axis of two equal halves, and got {show_shape(shape)}")
        return (*shape[:-1], shape[-1] // 2)
