"""What the trainer gets: arrays ready for a model, and what was done to get them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unitrain.data.raw import Array

if TYPE_CHECKING:
    from unitrain.data.augment import Augmenter
    from unitrain.data.leaks import Leak
    from unitrain.data.preprocess import Preprocessing


@dataclass(frozen=True)
class Split:
    """Samples of one part; the first axis of every array.

    Parameters
    ----------
    inputs
        Model input -> float32 or int32 ``[n, *shape]``.
    targets
        Model output -> int32 class codes or float32 numbers, ``[n]`` or ``[n, ...]``.
    weight
        Float32 ``[n]``, or None.
    rows
        Position of each sample in the file it came from, from 0, int64 ``[n]``.
    """

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]
    weight: Array | None = None
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Report:
    """What a user should know of the data.

    Parameters
    ----------
    counts
        Samples of each part.
    class_counts
        Output -> class -> part -> samples.
    leaks
        Equal rows in two parts.
    notes
        Everything else, a sentence each: constant columns, filled and dropped rows, inferred tasks.
    """

    counts: Mapping[str, int]
    class_counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the report as lines of text: sizes first, then leaks, then notes."""
        sizes = ", ".join(f"{count:,} {part}" for part, count in self.counts.items())
        return [f"samples: {sizes}", *(str(leak) for leak in self.leaks), *self.notes]

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "counts": dict(self.counts),
            "class_counts": {
                output: {name: dict(parts) for name, parts in classes.items()}
                for output, classes in self.class_counts.items()
            },
            "leaks": [leak.to_plain() for leak in self.leaks],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Prepared:
    """The data of a run.

    Parameters
    ----------
    train, validation, test
        The parts; a part that the recipe leaves out is None.
    preprocessing
        Fitted on ``train``; to be stored with the run.
    classes
        Output -> class names, for outputs that have classes.
    report
        What a user should know.
    augmenter
        Changes batches of training inputs, or None when the recipe has no augmentation.
    """

    train: Split
    validation: Split | None
    test: Split | None
    preprocessing: Preprocessing
    classes: Mapping[str, tuple[str, ...]]
    report: Report
    augmenter: Augmenter | None = None
