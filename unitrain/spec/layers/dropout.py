"""Dropout."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unitrain.spec.layers.base import LayerSpec, Shape


class Dropout(LayerSpec):
    """In training, zero each element with probability ``rate`` and scale the kept ones by 1 / (1 - rate).

    Srivastava et al. 2014, in the inverted form. The mask comes from the project's counter-based generator in
    deterministic mode, keyed by seed, layer and step.
    """

    type: Literal["dropout"] = "dropout"
    rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        return inputs[0]
