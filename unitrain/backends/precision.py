"""What all backends say and do about the precision they work in."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from unitrain.backends.contract import Precision
from unitrain.spec.errors import InputError

HALF: tuple[Precision, ...] = ("float16", "bfloat16")
"""The precisions of 16 bits."""


def check_precision(backend: str, allowed: Collection[Precision], precision: Precision) -> None:
    """Raise `InputError` when a backend does not compute in a precision."""
    if precision not in allowed:
        raise InputError(
            f"the backend '{backend}' does not compute in {precision}",
            field=("precision",),
            found=precision,
            allowed=", ".join(allowed),
        )


def host_dtype(precision: Precision) -> np.dtype[Any]:
    """Return the dtype in which numbers of a precision leave a program.

    NumPy has no bfloat16. float32 holds every number of both 16-bit formats, so both leave as float32.
    """
    return np.dtype(np.float32 if precision in HALF else precision)
