"""Which sample goes into which part: by fractions, by classes, by groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.data.raw import Array
from unitrain.spec.data import Split
from unitrain.spec.errors import InputError

Index = npt.NDArray[np.int64]
_DEFAULT_FRACTION = 0.15


def fractions(split: Split, given: Mapping[str, Any]) -> dict[str, float]:
    """Return the fraction of each part that is to be drawn from the samples not yet in a part.

    Parameters
    ----------
    split
        What the recipe says.
    given
        Parts that the source has of its own.

    Raises
    ------
    InputError
        A fraction for a part that the source has, or fractions that do not sum to 1.
    """
    result: dict[str, float] = {}
    for part, stated in (("validation", split.validation), ("test", split.test)):
        if part not in given:
            result[part] = _DEFAULT_FRACTION if stated is None else stated
        elif stated is not None:
            raise InputError(
                f"the source has its own {part} part, so no fraction can be drawn for it",
                field=("split", part),
                found=str(stated),
            )
    rest = 1.0 - sum(result.values())
    train = rest if split.train is None else split.train
    if rest <= 0 or abs(train - rest) > 1e-6:
        shown = {"train": train, **result} if split.train is not None else result
        raise InputError(
            "the fractions must sum to 1, with some left for training",
            field=("split",),
            found=" + ".join(f"{part} {value:g}" for part, value in shown.items()),
            hint=f"train would be {rest:g}" if rest > 0 else None,
        )
    return {"train": train, **{part: value for part, value in result.items() if value > 0}}


def divide(
    count: int,
    shares: Mapping[str, float],
    generator: np.random.Generator,
    classes: Array | None = None,
    groups: Array | None = None,
) -> dict[str, Index]:
    """Divide ``count`` samples into parts; every sample lands in exactly one.

    Parameters
    ----------
    shares
        Part -> fraction, summing to 1.
    classes
        Codes ``[n]`` whose proportions each part keeps, or None.
    groups
        Names ``[n]``: samples of one group stay together, or None.

    Returns
    -------
    parts
        Sorted positions of each part.

    Raises
    ------
    InputError
        Too few samples, members of a class, or groups for the parts.
    """
    if groups is not None:
        owner = _divide_groups(shares, generator, classes, groups)
        return {part: np.flatnonzero(owner == number) for number, part in enumerate(shares)}
    order = stratified_order(np.zeros(count, dtype=np.int64) if classes is None else classes, generator)
    cuts = np.round(np.cumsum(list(shares.values()))[:-1] * count).astype(np.int64)
    parts = dict(zip(shares, np.split(order, cuts), strict=True))
    for part, index in parts.items():
        if not len(index):
            raise InputError(
                f"too few samples: the {part} part would be empty",
                field=("split", part),
                found=f"{count} samples, fraction {shares[part]:g}",
            )
    if classes is not None:
        _check_classes(classes, parts)
    return {part: np.sort(index) for part, index in parts.items()}


def in_order(
    count: int,
    shares: Mapping[str, float],
    gap: int,
    stretches: Sequence[tuple[int, int]] | None = None,
    look_back: int = 0,
) -> dict[str, Index]:
    """Cut ``count`` samples into parts that follow one another, ``gap`` samples left out between two.

    Parameters
    ----------
    stretches
        Begin and end of each series, which are cut one by one; a part has nothing of a series that is too short.
    look_back
        So many samples before it belong to each part but the first, as far as there are any.

    Raises
    ------
    InputError
        A part would be empty.
    """
    cut = [_cut_in_order(begin, end, shares, gap, look_back) for begin, end in stretches or [(0, count)]]
    parts = {part: np.concatenate([each[part] for each in cut]) for part in shares}
    for part, index in parts.items():
        if not len(index):
            raise InputError(
                f"too few samples: the {part} part would be empty",
                field=("split", part),
                found=f"{count} samples, fraction {shares[part]:g}, gap {gap}",
            )
    return parts


def _cut_in_order(begin: int, end: int, shares: Mapping[str, float], gap: int, look_back: int) -> dict[str, Index]:
    cuts = begin + np.array([0, *np.round(np.cumsum(list(shares.values())) * (end - begin))], dtype=np.int64)
    parts: dict[str, Index] = {}
    for part, start, stop in zip(shares, cuts[:-1], cuts[1:], strict=True):
        first = start + gap if parts else start
        # A part that has no rows of its own has nothing to look back from.
        parts[part] = np.arange(max(begin, first - look_back) if parts and first < stop else first, stop)
    return parts


def stratified_order(classes: Array, generator: np.random.Generator) -> Index:
    """Order samples so that every stretch of the order holds the classes in proportion.

    The members of a class, in random order, are placed at equal distances (rank + 1/2) / members over the
    unit interval; so a cut anywhere leaves each class within one sample of its share.
    """
    tie = generator.permutation(len(classes))
    _, codes, members = np.unique(classes, return_inverse=True, return_counts=True)
    by_class = np.lexsort((tie, codes))
    rank = np.empty(len(classes), dtype=np.int64)
    starts = np.cumsum(members) - members
    rank[by_class] = np.arange(len(classes)) - np.repeat(starts, members)
    return np.lexsort((tie, (rank + 0.5) / members[codes]))


def _check_classes(classes: Array, parts: Mapping[str, Index]) -> None:
    names, members = np.unique(classes, return_counts=True)
    in_train = np.isin(names, classes[parts["train"]])
    for name, number, trained in zip(names, members, in_train, strict=True):
        if number < len(parts) or not trained:
            raise InputError(
                f"too few samples of class '{name}' to stratify",
                field=("split", "stratified"),
                found=f"{number}",
                allowed=f"at least {len(parts)}, one for each part, and one in training",
                hint="state `stratified: false`, or leave a part out with a fraction of 0",
            )


def _divide_groups(
    shares: Mapping[str, float], generator: np.random.Generator, classes: Array | None, groups: Array
) -> Index:
    """Give each group, the largest first, to the part that lacks most of what it holds.

    With classes, "what it holds" is its count of each class, weighed by how rare the class is, so that parts
    come near the class proportions too.
    """
    _, group = np.unique(groups.astype(str), return_inverse=True)
    codes = np.zeros(len(groups), dtype=np.int64)
    if classes is not None:
        _, codes = np.unique(classes, return_inverse=True)
    holds = np.zeros((group.max() + 1, codes.max() + 1))
    np.add.at(holds, (group, codes), 1.0)
    if len(holds) < len(shares):
        raise InputError(
            "too few groups to split by",
            field=("split", "group"),
            found=f"{len(holds)} groups",
            allowed=f"at least {len(shares)}, one for each part",
        )
    total = holds.sum(axis=0)
    lacks = np.array(list(shares.values()))[:, None] * total
    part_of = np.empty(len(holds), dtype=np.int64)
    empty = set(range(len(shares)))
    order = np.lexsort((generator.permutation(len(holds)), -holds.sum(axis=1)))
    for position, index in enumerate(order):
        need = (lacks / total) @ holds[index]
        choices = sorted(empty) if len(order) - position == len(empty) else range(len(shares))
        part = max(choices, key=lambda choice: float(need[choice]))
        part_of[index] = part
        lacks[part] -= holds[index]
        empty.discard(part)
    return part_of[group]
