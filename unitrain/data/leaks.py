"""Samples that stand in two parts at once: what a model is tested on, it must not have seen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitrain.data.dataset import Split
from unitrain.data.raw import Raw

_EXAMPLES = 5


@dataclass(frozen=True)
class Leak:
    """Equal inputs in two parts.

    Parameters
    ----------
    earlier, later
        The parts: ``train`` and ``test``, say.
    count
        Samples of ``later`` whose inputs stand in ``earlier`` too.
    same_target
        How many of them have the same targets as well.
    examples
        Some pairs, each named by file and line: (in ``earlier``, in ``later``).
    """

    earlier: str
    later: str
    count: int
    same_target: int
    examples: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        pairs = "; ".join(f"{first} = {second}" for first, second in self.examples)
        verb = "sample stands" if self.count == 1 else "samples stand"
        return (
            f"leak: {self.count:,} {self.later} {verb} in {self.earlier} too "
            f"({self.same_target:,} with the same target): {pairs}"
            + ("; ..." if self.count > len(self.examples) else "")
        )

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "earlier": self.earlier,
            "later": self.later,
            "count": self.count,
            "same_target": self.same_target,
            "examples": [list(pair) for pair in self.examples],
        }


def find_leaks(splits: Mapping[str, Split], raws: Mapping[str, Raw]) -> tuple[Leak, ...]:
    """Compare every two parts for samples with exactly equal inputs.

    Parameters
    ----------
    splits
        The parts after preprocessing, in the order train, validation, test.
    raws
        The same samples as read, to name them.
    """
    digests = {part: sample_digests(split.inputs) for part, split in splits.items()}
    first_seen = {
        part: {digest: sample for sample, digest in reversed(list(enumerate(found)))} for part, found in digests.items()
    }
    parts = list(splits)
    leaks = []
    for position, earlier in enumerate(parts):
        for later in parts[position + 1 :]:
            pairs = [
                (first_seen[earlier][digest], sample)
                for sample, digest in enumerate(digests[later])
                if digest in first_seen[earlier]
            ]
            if pairs:
                leaks.append(_describe(earlier, later, pairs, splits, raws))
    return tuple(leaks)


def _describe(
    earlier: str,
    later: str,
    pairs: list[tuple[int, int]],
    splits: Mapping[str, Split],
    raws: Mapping[str, Raw],
) -> Leak:
    here, there = (np.array(side) for side in zip(*pairs, strict=True))
    same = np.ones(len(pairs), dtype=bool)
    for name, values in splits[later].targets.items():
        equal = splits[earlier].targets[name][here] == values[there]
        same &= equal.reshape(len(pairs), -1).all(axis=1)
    examples = tuple(
        (raws[earlier].origin.name(int(splits[earlier].rows[a])), raws[later].origin.name(int(splits[later].rows[b])))
        for a, b in pairs[:_EXAMPLES]
    )
    return Leak(earlier, later, len(pairs), int(same.sum()), examples)


def sample_digests(inputs: Mapping[str, Any]) -> list[bytes]:
    """Return 16 bytes for each sample, equal for equal inputs ``[n, ...]``."""
    arrays = [np.ascontiguousarray(values) for values in inputs.values()]
    # Adding zero turns -0.0 into 0.0: equal numbers get equal bytes.
    rows = [
        (values if values.dtype == bool else values + values.dtype.type(0)).reshape(len(values), -1)
        for values in arrays
    ]
    return [
        hashlib.blake2b(b"".join(row[sample].tobytes() for row in rows), digest_size=16).digest()
        for sample in range(len(arrays[0]))
    ]
