"""Four splits that share no sample: train, calibration, selection, test. Chosen on selection, reported on test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.data.leaks import sample_digests
from unitrain.spec.errors import InputError

Array = npt.NDArray[Any]

USED = ("calibration", "selection", "test")


@dataclass(frozen=True)
class Samples:
    """Samples of one split, the first axis of every array.

    Parameters
    ----------
    inputs
        Model input to ``[n, ...]``.
    target
        Of the output that is judged, ``[n]`` or ``[n, ...]``; None without labels.
    """

    inputs: Mapping[str, Array]
    target: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, index: Array) -> Samples:
        """Return some of the samples."""
        return Samples(
            {name: np.asarray(values[index]) for name, values in self.inputs.items()},
            None if self.target is None else self.target[index],
        )

    def batches(self, size: int) -> list[dict[str, Array]]:
        """Cut the inputs into batches."""
        return [
            {name: values[first : first + size] for name, values in self.inputs.items()}
            for first in range(0, len(self), size)
        ]


@dataclass(frozen=True)
class Splits:
    """The splits that a study uses.

    Parameters
    ----------
    calibration, selection, test
        What ranges are taken from, what is chosen on, what is reported.
    hashes
        Split to a hash of its samples, in their order; that of the training data where it is known.
    counts
        Split to its number of samples.
    notes
        Where they come from, and what was left out.
    """

    calibration: Samples
    selection: Samples
    test: Samples
    hashes: Mapping[str, str]
    counts: Mapping[str, int]
    notes: tuple[str, ...]


def make_splits(
    train: Mapping[str, Any] | None,
    calibration: Samples,
    selection: Samples,
    test: Samples,
    notes: tuple[str, ...] = (),
    *,
    drop: bool,
) -> Splits:
    """Hash the splits and see that no sample stands in two.

    Parameters
    ----------
    train
        Inputs of the training data, where they are known.
    drop
        Leave equal samples out of the later split, and say so, as for splits that were drawn from one data set with
        twins in it; else refuse them.

    Raises
    ------
    InputError
        Splits overlap, or one is empty.
    """
    seen: dict[bytes, str] = {}
    hashes: dict[str, str] = {}
    counts: dict[str, int] = {}
    said = list(notes)
    if train is not None:
        digests = sample_digests(train)
        seen = dict.fromkeys(digests, "train")
        hashes["train"], counts["train"] = _hash(digests), len(digests)
    kept: dict[str, Samples] = {}
    for name, samples in zip(USED, (calibration, selection, test), strict=True):
        digests = sample_digests(samples.inputs) if len(samples) else []
        fresh = np.array([digest not in seen for digest in digests], bool)
        if not fresh.all():
            first = int((~fresh).argmax())
            other = seen[digests[first]]
            if not drop:
                raise InputError(
                    f"the {name} samples are not apart from the {other} samples",
                    found=f"{int((~fresh).sum()):,} of {len(samples):,} stand in both, the first is sample {first}",
                    hint="what is chosen or tested on must be seen nowhere else: give other samples",
                )
            said.append(f"{int((~fresh).sum()):,} {name} samples were left out: they stand in another split too")
            samples = samples.take(np.flatnonzero(fresh))
            digests = [digest for digest, new in zip(digests, fresh, strict=True) if new]
        if not digests:
            raise InputError(
                f"no samples are left for {name}", hint="a study needs samples to calibrate, choose and test"
            )
        seen |= dict.fromkeys(digests, name)
        kept[name], hashes[name], counts[name] = samples, _hash(digests), len(digests)
    return Splits(kept["calibration"], kept["selection"], kept["test"], hashes, counts, tuple(said))


def cut(samples: Samples, shares: Mapping[str, float], generator: np.random.Generator) -> dict[str, Samples]:
    """Cut samples at random into parts with the given shares, which sum to 1.

    Raises
    ------
    InputError
        There are too few for one sample each.
    """
    if len(samples) < len(shares):
        raise InputError("too few samples to divide", found=str(len(samples)), allowed=f"{len(shares)} at least")
    order = generator.permutation(len(samples))
    edges = np.round(np.cumsum(list(shares.values()))[:-1] * len(samples)).astype(int)
    edges = np.clip(edges, np.arange(1, len(shares)), len(samples) - np.arange(len(shares) - 1, 0, -1))
    return {name: samples.take(np.sort(index)) for name, index in zip(shares, np.split(order, edges), strict=True)}


def limited(samples: Samples, most: int) -> Samples:
    """Return the first ``most`` samples."""
    return samples if len(samples) <= most else samples.take(np.arange(most))


def _hash(digests: list[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()
