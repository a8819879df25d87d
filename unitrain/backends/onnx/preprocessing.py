"""What preprocessing does, in plain values that know nothing of how it was fitted; `surroundings` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from unitrain.graph.graph import Graph
from unitrain.spec.layers.base import Shape

# Whole numbers from here on do not fit an int32 input.
_INT32 = 2**31


@dataclass(frozen=True)
class Numbers:
    """``(x - shift) / scale`` for each entry of the last axis, missing values (NaN) filled with ``fill`` first.

    ``shape`` is that of a sample as it comes in; ``()`` for a plain column.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    fill: tuple[float, ...] | None = None
    shape: Shape = ()


@dataclass(frozen=True)
class Integers:
    """Whole numbers as they are, from ``low`` up to and without ``high``; ``shape`` as for `Numbers`."""

    low: int = -_INT32 + 1
    high: int = _INT32
    shape: Shape = ()


@dataclass(frozen=True)
class Categories:
    """Words to one column for each category, or to a code.

    Parameters
    ----------
    codes
        Word to code, and -1 for a word that is refused; words that stand for a missing value have the code of what
        fills them.
    width
        Number of columns for ``one_hot``.
    one_hot
        Columns of zeros and a one, else the code as a number.
    unseen
        Code of any other word: ``width`` gives zeros in every column, -1 refuses the row.
    """

    codes: Mapping[str, int]
    width: int
    one_hot: bool
    unseen: int = -1


@dataclass(frozen=True)
class Pixels:
    """``x / divisor - offset`` for each channel of uint8 images ``[height, width, channel]``, in float32."""

    divisor: tuple[float, ...]
    offset: tuple[float, ...]
    shape: Shape


Step = Numbers | Integers | Categories | Pixels


@dataclass(frozen=True)
class Feature:
    """A named input of the data, and how it becomes numbers."""

    name: str
    step: Step


@dataclass(frozen=True)
class ClassNames:
    """An output ``[batch, width]`` of logits, or one logit with ``binary``: class names, in the order of the codes."""

    names: tuple[str, ...]
    binary: bool = False


@dataclass(frozen=True)
class Labels:
    """An output ``[batch, label]`` of logits, a yes or no each."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Units:
    """An output of numbers: ``y * scale + shift`` in the units of the data."""

    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)


Target = ClassNames | Labels | Units


@dataclass(frozen=True)
class Preprocessing:
    """All of it: the features of each model input, in their order, and the way back of each output."""

    inputs: Mapping[str, tuple[Feature, ...]]
    targets: Mapping[str, Target] = field(default_factory=dict)

    def output_names(self, graph: Graph) -> dict[str, dict[str, str]]:
        """Return the names of the outputs that are added: ``{output: {"prediction": name, ...}}``.

        With one output these are ``prediction`` and, for classes, ``probabilities``, for several yes or no labels
        ``probabilities`` alone; with several, and where the model itself has an output of that name, the name of the
        output stands before it.
        """
        given = {ClassNames: ("prediction", "probabilities"), Labels: ("probabilities",), Units: ("prediction",)}
        kinds = {output: given[type(target)] for output, target in self.targets.items()}
        plain = len(graph.outputs) == 1 and {"prediction", "probabilities"}.isdisjoint(graph.outputs)
        return {
            output: {kind: kind if plain else f"{output}.{kind}" for kind in listed} for output, listed in kinds.items()
        }
