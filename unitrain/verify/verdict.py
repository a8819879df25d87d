"""The verdict on one tensor: is its error that of correct rounding, or is it a fault?

A fixed tolerance is wrong in both directions: a correct float32 matrix product has elements that are off by a
percent, and a layer norm with a wrong epsilon is off by a millionth. The yardstick here is what NumPy loses on
the same computation in float32, against its own run in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Precision
from unitrain.verify.rounding import FORMATS, rounded

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Verdict:
    """What `judge` found.

    Parameters
    ----------
    passed
        Whether the tensor is right.
    ratio
        Root mean square error over its yardstick; at most ``bound`` in a tensor that is right.
    max_ratio
        Largest error over its yardstick; at most twice ``bound`` in a tensor that is right.
    bound
        The factor allowed: smaller for large tensors, whose mean error varies less.
    reason
        Why the tensor fails where no ratio says so: its shape, or NaN and Inf in other places.
    """

    passed: bool
    ratio: float
    max_ratio: float
    bound: float
    reason: str = ""

    def __str__(self) -> str:
        ratios = f"ratio {self.ratio:.3g} of {self.bound:g}, largest {self.max_ratio:.3g} of {2 * self.bound:g}"
        return f"{'PASS' if self.passed else 'FAIL'} {self.reason or ratios}"


def bound_for(size: int) -> float:
    """Return the factor over the yardstick that is allowed to a tensor of ``size`` elements."""
    return 4.0 if size >= 1000 else 8.0 if size >= 100 else 16.0


def judge(
    candidate: Array,
    reference64: Array,
    *yardsticks: Array,
    growth: float = 1.0,
    precision: Precision | None = None,
) -> Verdict:
    """Compare a tensor with the float64 reference.

    With e the root mean square of the difference from the reference, the tensor passes when
    e(candidate) <= bound * growth * max(e(yardstick), ..., u * rms(reference)), where u is the unit roundoff of
    the candidate's precision, and when the same holds of the largest difference with twice the bound. NaN, Inf
    and -Inf must stand where the reference, rounded to that precision, has them; within 2 * bound * u of the largest
    number either is right.

    Parameters
    ----------
    candidate
        What a backend computed, floats. Another dtype holds exact values and must be equal.
    reference64
        What NumPy computed in float64.
    yardsticks
        What else came out of the same computation with errors of float32's size: NumPy's own run in float32, the
        float64 run from weights that were moved by half an ulp. Of a candidate in another precision the same
        loss is expected at that precision's roundoff, so the errors are scaled: by 2**-29 for float64, by 2**16 for
        bfloat16.
    growth
        How much more than NumPy's a right computation may lose here; see `sum_growth`.
    precision
        What the candidate was computed in; by default its dtype. Numbers of 16 bits come in arrays of float32.

    Notes
    -----
    Neither yardstick is ever smaller than `rounding.Format.unavoidable`: the smallest normal number where frameworks
    flush what lies below to zero, in float16 u times that number, half the distance of its subnormal numbers. Where
    all three agree exactly, as after a reshape, the ratios are 0.
    """
    bound = bound_for(reference64.size)
    if candidate.shape != reference64.shape:
        return _failure(f"shape {list(candidate.shape)}, not {list(reference64.shape)}", bound)
    if candidate.dtype.kind != "f":
        equal = bool((candidate == reference64).all())
        return Verdict(True, 0.0, 0.0, bound) if equal else _failure("exact values differ", bound)
    worked_in: Precision = precision or candidate.dtype.name  # type: ignore[assignment]  # floats have no other names
    form = FORMATS[worked_in]
    nearest = rounded(reference64, worked_in)
    # Next to the largest number an error of a few units decides between it and infinity.
    either = np.abs(np.abs(reference64) - form.largest) <= 2 * bound * form.roundoff * form.largest
    either &= np.sign(candidate) == np.sign(reference64)
    if misplaced := _misplaced(np.where(either, 0.0, candidate), np.where(either, 0.0, nearest)):
        return _failure(misplaced, bound)
    finite = np.isfinite(nearest) | either
    reference = reference64[finite].astype(np.float64)
    rms, largest = form.roundoff * _rms(reference), form.roundoff * _largest(reference)
    for yardstick in yardsticks:
        if yardstick.shape != reference64.shape:  # losses of steps that ended at one that is not finite
            continue
        expected = yardstick[finite].astype(np.float64) - reference
        # Where a yardstick itself overflows it is none.
        expected = expected[np.isfinite(expected)] if np.isfinite(expected).any() else np.zeros(1)
        expected *= form.roundoff / FORMATS["float32"].roundoff
        rms, largest = max(rms, _rms(expected)), max(largest, _largest(expected))

    counted = finite & np.isfinite(candidate)
    error = candidate[counted].astype(np.float64) - reference64[counted]
    ratio = _rms(error) / max(growth * rms, form.unavoidable)
    max_ratio = _largest(error) / max(growth * largest, form.unavoidable)
    return Verdict(ratio <= bound and max_ratio <= 2 * bound, ratio, max_ratio, bound)


def sum_growth(terms: int) -> float:
    """Return by how much a sum of ``terms`` numbers may lose more than NumPy's, which adds in pairs.

    The error of numbers added one after another grows like the square root of their count (Higham & Mary 2019,
    section 3); frameworks add in many lanes, so the growth begins late. Measured in torch's batch norm in training,
    which loses most: ratios of 9, 9 and 17 for 320, 1280 and 5120 terms, where this allows 13, 25 and 50.
    """
    return max(1.0, float(np.sqrt(terms / 32.0)))


def _failure(reason: str, bound: float) -> Verdict:
    return Verdict(False, np.inf, np.inf, bound, reason)


def _misplaced(candidate: Array, reference: Array) -> str:
    """Say which of NaN, Inf and -Inf stands in other places than in the reference; nothing when all agree."""
    for name, test in (("NaN", np.isnan), ("Inf", np.isposinf), ("-Inf", np.isneginf)):
        found, wanted = test(candidate), test(reference)
        if (found != wanted).any():
            place = tuple(map(int, np.argwhere(found != wanted)[0]))
            return f"{name} {'stands' if found[place] else 'is missing'} at {list(place)}"
    return ""


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))
