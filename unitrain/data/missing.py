"""Rows that lack a value, and are dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unitrain.data.raw import Raw, missing_mask
from unitrain.spec.data import Missing
from unitrain.spec.errors import InputError


def without_missing(raw: Raw, features: Mapping[str, Any], missing: Missing) -> tuple[Raw, list[str]]:
    """Drop rows where the policy is ``drop_row``; a missing target without that policy is an error.

    Returns
    -------
    raw
        The rows that are left; never none.
    notes
        How many were dropped and why.

    Raises
    ------
    InputError
        A missing target (with its row), or no row is left.
    """
    if not len(raw):
        raise InputError("there are no samples", file=raw.origin.file)
    keep = np.ones(len(raw), dtype=bool)
    notes: list[str] = []
    for name, values in raw.targets.items():
        absent = missing_mask(values)
        if absent.any() and missing.target == "error":
            raise raw.error(
                int(absent.argmax()),
                f"target '{name}': a missing value",
                found=f"{int(absent.sum()):,} missing in all",
                hint="state `missing: {target: drop_row}` to leave such rows out",
            )
        if absent.any():
            notes.append(f"{raw.origin.file}: {int(absent.sum()):,} rows without target '{name}' dropped")
        keep &= ~absent
    for name in features:
        values = raw.features[name]
        policy = missing.category if values.dtype == object else missing.numeric
        absent = np.zeros(len(raw), dtype=bool)
        if policy == "drop_row":
            absent = np.concatenate([missing_mask(piece.features[name]) for piece in raw.chunks(name)])
        if absent.any():
            notes.append(f"{raw.origin.file}: {int(absent.sum()):,} rows without '{name}' dropped")
        keep &= ~absent
    if not keep.any():
        raise InputError("no row is left: each lacks a value", file=raw.origin.file)
    return (raw if keep.all() else raw.take(keep)), notes
