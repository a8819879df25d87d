"""What a model is: inputs, layers, reusable blocks with arguments, outputs.

A layer whose fields hold references to arguments (``$width``) is kept as a `Template` until the model is
resolved with values for them; any other is a checked layer from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, WrapValidator, field_validator, model_validator

from unitrain.spec.base import Spec, check_field_name
from unitrain.spec.choice import Choice
from unitrain.spec.expressions import Argument, has_reference
from unitrain.spec.layers import LAYERS
from unitrain.spec.layers.base import InputNames, LayerSpec, Name, ValueType


class InputSpec(Spec):
    """One input of a model.

    Parameters
    ----------
    shape
        Shape of one sample, batch left out; ``[]`` for a single number.
    dtype
        ``float``, or ``integer`` for indices into an embedding.
    low, high
        Range of the values, both ends included, from which samples are drawn where there is no data.
    """

    shape: tuple[PositiveInt, ...]
    dtype: ValueType = "float"
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} lies above high {self.high}")
        return self


class BlockCall(LayerSpec):
    """One use of a block, or ``repeat`` uses in a row, the output of each the input of the next.

    ``$index`` counts the repeats from 0 inside the block's layers. A block with more inputs than outputs is given the
    further inputs at every repeat. Of no repeats the input is the result.
    """

    arity = (1, None)
    type: Literal["block"] = "block"
    block: str
    repeat: NonNegativeInt = 1
    arguments: dict[str, Argument] = {}


class SharedCall(LayerSpec):
    """An earlier layer or block applied once more, with the same weights."""

    arity = (1, None)
    type: Literal["shared"] = "shared"
    layer: str


STEPS: tuple[type[LayerSpec], ...] = (*LAYERS, BlockCall, SharedCall)
STEP_TYPES: dict[str, type[LayerSpec]] = {step.model_fields["type"].default: step for step in STEPS}


class Template(Spec):
    """A layer or input whose fields hold references; its field names are checked, its values not yet."""

    fields: dict[str, Any]

    def to_plain(self) -> dict[str, Any]:
        """Return the fields as they were written."""
        return dict(self.fields)


def _template_or_layer(value: Any, handler: Any) -> Any:
    if isinstance(value, (Template, LayerSpec)):
        return value
    if isinstance(value, Mapping) and has_reference(value):
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in STEP_TYPES:
            return handler(value)
        for key in value:
            check_field_name(str(key), STEP_TYPES[kind])
        return Template(fields=dict(value))
    return handler(value)


def _template_or_input(value: Any, handler: Any) -> Any:
    if isinstance(value, (Template, InputSpec)):
        return value
    if isinstance(value, Mapping) and has_reference(value):
        for key in value:
            check_field_name(str(key), InputSpec)
        return Template(fields=dict(value))
    return handler(value)


if TYPE_CHECKING:
    Layer = LayerSpec | Template
    Input = InputSpec | Template
else:
    # The wrap validators let templates past; what they hand on is validated as a layer or input.
    Layer = Annotated[LayerSpec, Choice(STEP_TYPES), WrapValidator(_template_or_layer)]
    Input = Annotated[InputSpec, WrapValidator(_template_or_input)]


def layer_from_plain(fields: Mapping[str, Any]) -> LayerSpec:
    """Validate one layer whose references have been replaced. Raises pydantic's `ValidationError`."""
    kind = fields.get("type")
    return STEP_TYPES[str(kind)].model_validate(dict(fields))


class BlockSpec(Spec):
    """A reusable part of a model.

    Parameters
    ----------
    arguments
        Names and defaults; a default of null makes the argument required.
    inputs
        Names under which the layers refer to what the block is given.
    layers
        As in a model.
    outputs
        Layers whose results the block gives; by default the last one. Several are told apart by a dot:
        ``stem.left``.
    """

    arguments: dict[Name, Argument | None] = {}
    inputs: InputNames = ("input",)
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)]
    outputs: InputNames | None = None

    @field_validator("inputs")
    @classmethod
    def _names_differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("an input is named twice")
        return names


class ModelSpec(Spec):
    """A whole model.

    Parameters
    ----------
    name
        What the model is called.
    description, source
        A sentence about it, and the paper it comes from.
    arguments
        Sizes that a recipe may set, with their defaults: ``classes: 10`` is used as ``$classes``.
    inputs
        Named inputs.
    blocks
        Named reusable parts.
    layers
        In the order of computation. A layer reads the one before it, unless it names its ``inputs``.
    outputs
        Names of the layers that are the model's outputs; by default the last one.
    """

    name: str = "model"
    description: str | None = None
    source: str | None = None
    arguments: dict[Name, Argument] = {}
    inputs: Annotated[dict[Name, Input], Field(min_length=1)]
    blocks: dict[Name, BlockSpec] = {}
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)]
    outputs: InputNames | None = None
