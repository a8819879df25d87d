"""What the trainer gets: the parts of the data, and what was done to get them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unitrain.data.augment import Augmenter
from unitrain.data.dataset import Split
from unitrain.data.leaks import Leak
from unitrain.data.preprocess import Preprocessing


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
