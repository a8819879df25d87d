"""Attention of several heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from unitrain.spec.initializers import Glorot, Initializer, Zeros
from unitrain.spec.layers.base import (
    InputNames,
    LayerSpec,
    Parameter,
    Shape,
    ShapeError,
    ValueType,
    Wanted,
    bias_parameter,
    kernel_parameter,
    require_rank,
)


class Attention(LayerSpec):
    """Each position looks at all others: ``[length, channel]`` to ``[length, width]``.

    Vaswani et al. 2017, section 3.2: for each head softmax(Q K^T / sqrt(head_width)) V, the heads side by side and
    projected. A position that may attend to nothing gets zeros before that projection.

    Parameters
    ----------
    heads
        Number of heads.
    key_value_heads
        Fewer heads of keys and values, each shared by as many neighbouring heads of queries (Ainslie et al. 2023,
        GQA; 1 is Shazeer's 2019 multi-query attention). By default ``heads``.
    head_width
        Channels of a head; by default those of the input divided by ``heads``.
    width
        Channels of the output; by default those of the input.
    use_bias
        Whether the four projections have a bias. That of the keys adds the same to all products of a query, which the
        softmax takes out again: its gradient is zero, exactly, and not what rounding leaves of it, which Adam would
        blow up. With rotary positions it is turned, and learns.
    causal
        A position attends to itself and those before it.
    dropout
        In training drop attention weights with this probability, as `Dropout` does.
    position
        ``rotary``: queries and keys are turned by angles that grow with the position (Su et al. 2021, RoFormer);
        ``alibi``: -slope * distance is added before the softmax (Press et al. 2022), with the slopes of that paper.
    rotary_base
        The angle of pair i at position p is ``p * rotary_base ** (-2 i / head_width)``.
    rotary_layout
        Which channels make a pair: ``half``, i and i + head_width / 2 as in Llama; ``interleaved``, 2 i and 2 i + 1 as
        in the paper.
    key_value
        What keys and values are made of, ``[any length, any channel]``; by default the input.
    mask
        Integers ``[length of key_value]``: 1 may be attended to, 0 not.
    """

    side_inputs: ClassVar[Mapping[str, ValueType]] = {"key_value": "float", "mask": "integer"}

    drop_field: ClassVar[str | None] = "dropout"

    type: Literal["attention"] = "attention"
    heads: PositiveInt
    key_value_heads: PositiveInt | None = None
    head_width: PositiveInt | None = None
    width: PositiveInt | None = None
    causal: bool = False
    use_bias: bool = True
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    position: Literal["none", "rotary", "alibi"] = "none"
    rotary_base: PositiveFloat = 10000.0
    rotary_layout: Literal["half", "interleaved"] = "half"
    key_value: InputNames | None = None
    mask: InputNames | None = None
    kernel_initializer: Initializer = Glorot()
    bias_initializer: Initializer = Zeros()

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.heads % self.groups:
            raise ValueError(f"heads {self.heads} is no multiple of key_value_heads {self.groups}")
        if self.position != "none" and self.key_value is not None:
            raise ValueError(f"position {self.position} needs queries and keys of one sequence, without key_value")
        if self.position == "rotary" and (self.head_width or 2) % 2:
            raise ValueError(f"rotary turns pairs of channels, and head_width {self.head_width} is odd")
        return self

    @property
    def key_bias_learns(self) -> bool:
        """Whether the bias of the keys has a gradient."""
        return self.position == "rotary"

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.key_value_heads or self.heads

    def channels(self, *inputs: Shape) -> int:
        """Return the channels of one head."""
        return self.head_width or inputs[0][-1] // self.heads

    def side_shapes(self, *inputs: Shape) -> dict[str, tuple[Wanted, ...]]:
        """Keys and values are a sequence; the mask is as long as they are, which `output_shape` checks."""
        require_rank(inputs[0], 2, "(length, channel)")
        return {"key_value": ((None, None),), "mask": ((inputs[0][0] if self.key_value is None else None,),)}

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the length of the queries and the width."""
        require_rank(inputs[0], 2, "(length, channel)")
        length, channel = inputs[0]
        if self.head_width is None and channel % self.heads:
            raise ShapeError(f"has {self.heads} heads, which do not divide the {channel} channels: set head_width")
        if self.position == "rotary" and self.channels(*inputs) % 2:
            raise ShapeError(f"turns pairs of channels, and a head has {self.channels(*inputs)}")
        sides = self.sides(inputs)
        keys = sides.get("key_value", (inputs[0],))[0][0]
        if "mask" in sides and sides["mask"][0] != (keys,):
            raise ShapeError(f"has a mask of {sides['mask'][0][0]} positions for {keys} keys")
        return (length, self.width or channel)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """Kernels ``query``, ``key``, ``value``, ``output`` ``(in, out)``; with ``use_bias`` ``query_bias`` and so on.

        The channels of the first head come first.
        """
        channel, head = inputs[0][-1], self.channels(*inputs)
        source = self.sides(inputs).get("key_value", (inputs[0],))[0][-1]
        shapes = {
            "query": (channel, self.heads * head),
            "key": (source, self.groups * head),
            "value": (source, self.groups * head),
            "output": (self.heads * head, self.width or channel),
        }
        table = {name: kernel_parameter(shape, self.kernel_initializer, shape) for name, shape in shapes.items()}
        if self.use_bias:
            table |= {
                f"{name}_bias": bias_parameter(shape[-1], self.bias_initializer) for name, shape in shapes.items()
            }
        return table

    def macs(self, *inputs: Shape) -> int:
        """Those of the projections, of all products of queries and keys, and of the weighted sums."""
        length = inputs[0][0]
        keys = self.sides(inputs).get("key_value", (inputs[0],))[0][0]
        sizes = {name: parameter.size for name, parameter in self.parameters(*inputs).items() if "_" not in name}
        projections = length * (sizes["query"] + sizes["output"]) + keys * (sizes["key"] + sizes["value"])
        return projections + 2 * length * keys * self.heads * self.channels(*inputs)
