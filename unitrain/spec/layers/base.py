"""What every layer specification has: fields, a shape rule, a table of parameters, a cost.

Shapes leave out the batch: an image is ``(height, width, channel)``, a sequence ``(length, channel)``.
"""

# No annotations from the future: pydantic reads those of a base anew for each class below it, and has to compile them
# each time where they are strings, which took 0.08 ms for each of a hundred layers.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, PositiveInt

from unitrain.spec.base import Spec
from unitrain.spec.initializers import Initializer, Ones, Orthogonal, Zeros
from unitrain.spec.quantizers import KernelQuantizer

Shape = tuple[int, ...]
# A shape that is asked for; None where any extent will do.
Wanted = tuple[int | None, ...]
ValueType = Literal["float", "integer"]

NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
# The name of a layer may be that of one inside blocks, as a rewritten model has it: `stage1.0.conv`.
LayerName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$", max_length=512)]


class ShapeError(Exception):
    """Input shapes do not fit a layer; the resolver adds the layer's name and place."""


@dataclass(frozen=True)
class Parameter:
    """One array that a layer owns, in canonical layout.

    Parameters
    ----------
    shape
        Canonical shape: ``(in, out)`` for dense, ``(height, width, in, out)`` for convolution kernels.
    initializer
        How it starts.
    fans
        Fan in and fan out, for initialisers that scale by them.
    trainable
        False for running statistics.
    decay
        Whether weight decay applies by default: to kernels and tables, not to biases and norms.
    raised
        ``(first, end, by)``: elements of a vector that start higher than drawn.
    quantizer
        How it is rounded each time that it is computed with; None: not at all.
    channel_axes
        How many of its last axes tell the output channels apart: 2 for depthwise kernels.

    Raises
    ------
    ShapeError
        The initialiser cannot fill the shape.
    """

    shape: Shape
    initializer: Initializer
    fans: tuple[int, int] = (1, 1)
    trainable: bool = True
    decay: bool = False
    raised: tuple[int, int, float] | None = None
    quantizer: KernelQuantizer | None = None
    channel_axes: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.initializer, Orthogonal) and len(self.shape) < 2:
            raise ShapeError(f"has a parameter of shape {list(self.shape)}, and orthogonal needs two axes or more")

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size


def kernel_parameter(
    shape: Shape,
    initializer: Initializer,
    fans: tuple[int, int],
    quantizer: KernelQuantizer | None = None,
    channel_axes: int = 1,
) -> Parameter:
    """A trainable parameter that decays."""
    return Parameter(shape, initializer, fans, decay=True, quantizer=quantizer, channel_axes=channel_axes)


def bias_parameter(size: int, initializer: Initializer | None = None) -> Parameter:
    """A trainable vector that does not decay; zeros by default."""
    return Parameter((size,), initializer or Zeros(), (size, size))


def scale_parameter(size: int, initializer: Initializer | None = None) -> Parameter:
    """A trainable vector that does not decay; ones by default."""
    return Parameter((size,), initializer or Ones(), (size, size))


def _as_names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def as_many(count: int) -> BeforeValidator:
    """Read one number as ``count`` equal ones."""
    return BeforeValidator(
        lambda value: (value,) * count if isinstance(value, int) and not isinstance(value, bool) else value,
        json_schema_input_type=PositiveInt | tuple[(PositiveInt,) * count],  # type: ignore[misc]  # as many as asked
    )


InputNames = Annotated[
    tuple[str, ...], Field(min_length=1), BeforeValidator(_as_names, json_schema_input_type=str | list[str])
]
# One number for both axes, or [vertical, horizontal].
Pair = Annotated[tuple[PositiveInt, PositiveInt], as_many(2)]
# One number for three axes, or [depth, vertical, horizontal].
Triple = Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], as_many(3)]


_T = TypeVar("_T")


class LayerSpec(Spec):
    """One layer: what it is called, what it reads, and what it does.

    Parameters
    ----------
    type
        Which layer this is.
    name
        Its name in the model, part of its parameters' canonical names; by default the type and a number.
    inputs
        Names of earlier layers or of model inputs; by default the layer before.
    """

    # How many inputs the layer takes: (least, most); most None means any number.
    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    # The kind of value it reads; "any" passes the kind of its inputs on.
    accepts: ClassVar[Literal["float", "integer", "any"]] = "float"
    # The kind of value it gives; None: float, or with `accepts` "any" the kind of its inputs.
    gives: ClassVar[ValueType | None] = None
    # Fields that name further inputs, such as a mask, and the kind of each. Those that are set follow `inputs`, in
    # this order, among the inputs of the layer's node.
    side_inputs: ClassVar[Mapping[str, ValueType]] = {}
    # The field with the probability of being dropped in training, of layers that drop.
    drop_field: ClassVar[str | None] = None
    # Parameters that may be another layer's of the same local name, and the field that names that layer.
    ties: ClassVar[Mapping[str, str]] = {}

    type: str
    name: LayerName | None = None
    inputs: InputNames | None = None

    def side_names(self) -> dict[str, tuple[str, ...]]:
        """Return the names that side inputs are given, by field, for the fields that are set."""
        given = {name: getattr(self, name) for name in self.side_inputs}
        return {name: value for name, value in given.items() if value is not None}

    def sides(self, inputs: Sequence[_T]) -> dict[str, tuple[_T, ...]]:
        """Tell the side inputs apart among all inputs of the layer: shapes, arrays or tensors, by field."""
        names = self.side_names()
        start = len(inputs) - sum(map(len, names.values()))
        found = {}
        for field, given in names.items():
            found[field] = tuple(inputs[start : start + len(given)])
            start += len(given)
        return found

    def side_shapes(self, *inputs: Shape) -> dict[str, tuple[Wanted, ...]]:
        """Return the shapes that the side inputs must have, by field, for the fields that are set.

        Parameters
        ----------
        inputs
            Shapes of what stands in ``inputs``, the side inputs not among them.
        """
        return {}

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the output, batch left out; ``inputs`` are all inputs, side inputs last.

        Raises
        ------
        ShapeError
            The input shapes do not fit.
        """
        raise NotImplementedError

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """Return the layer's parameters by local name, such as ``kernel`` and ``bias``."""
        return {}

    def macs(self, *inputs: Shape) -> int:
        """Count the multiply-accumulates of matrix and convolution arithmetic for one sample."""
        return 0


def require_rank(shape: Shape, rank: int, meaning: str) -> None:
    """Raise `ShapeError` unless ``shape`` has ``rank`` axes (batch left out)."""
    if len(shape) != rank:
        raise ShapeError(f"needs an input of {rank} axes, {meaning}, and got {show_shape(shape)}")


def show_shape(shape: Wanted) -> str:
    """Write a shape with its symbolic batch axis: ``[batch, 8, 8, 1]``; ``any`` for an extent that is free."""
    return "[" + ", ".join(["batch", *("any" if extent is None else str(extent) for extent in shape)]) + "]"
