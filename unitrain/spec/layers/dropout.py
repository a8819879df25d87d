"""Layers that leave something out in training, drawn anew at each step."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unitrain.spec.layers.base import LayerSpec, Shape

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class DroppingLayer(LayerSpec):
    """In training, multiply by a mask: 0 with probability ``rate``, else 1 / (1 - rate).

    The mask comes from the project's counter-based generator in deterministic mode, keyed by seed, layer and step.
    """

    drop_field: ClassVar[str | None] = "rate"

    rate: Rate

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        return inputs[0]

    def mask_shape(self, shape: Shape) -> Shape:
        """Return the shape of a sample's mask, whose axes of size 1 stretch over an input of ``shape``."""
        raise NotImplementedError


class Dropout(DroppingLayer):
    """In training, zero each element with probability ``rate`` and scale the kept ones by 1 / (1 - rate).

    Srivastava et al. 2014, in the inverted form.
    """

    type: Literal["dropout"] = "dropout"
    rate: Rate = 0.5

    def mask_shape(self, shape: Shape) -> Shape:
        """One number an element."""
        return shape


class StochasticDepth(DroppingLayer):
    """In training, zero whole samples with probability ``rate`` and scale the kept ones by 1 / (1 - rate).

    It stands at the end of a residual branch, before the sum: a sample that is zeroed takes the shortcut alone (Huang
    et al. 2016, *Deep Networks with Stochastic Depth*, in the inverted form; also called drop path).
    """

    type: Literal["stochastic_depth"] = "stochastic_depth"
    rate: Rate = 0.1

    def mask_shape(self, shape: Shape) -> Shape:
        """One number a sample."""
        return (1,) * len(shape)
