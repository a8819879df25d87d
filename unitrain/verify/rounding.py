"""The formats of floating-point numbers, and rounding to those of 16 bits, of which NumPy has one only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays, Precision
from unitrain.backends.precision import HALF, MIXED

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format (IEEE 754-2019, section 3.3; bfloat16 is float32 without its last 16 bits).

    Parameters
    ----------
    digits
        Bits of the significand, the leading one counted.
    lowest, highest
        Exponents of the smallest normal and of the largest number.
    flushed
        Whether frameworks may take numbers below the smallest normal one for zero. Those of float16 are normal numbers
        of float32, in which it is computed, so that they survive.
    """

    digits: int
    lowest: int
    highest: int
    flushed: bool = True

    @property
    def roundoff(self) -> float:
        """Unit roundoff: half the distance from 1 to the next number."""
        return 2.0**-self.digits

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2.0 - 2.0 ** (1 - self.digits)) * 2.0**self.highest

    @property
    def unavoidable(self) -> float:
        """The error that no computation can avoid, however small its result.

        Half the distance of subnormal numbers, which is u times the smallest normal number; or where subnormal numbers
        are flushed to zero, the smallest normal number.
        """
        return 2.0**self.lowest * (1.0 if self.flushed else self.roundoff)


FORMATS: dict[Precision, Format] = {
    "float64": Format(53, -1022, 1023),
    "float32": Format(24, -126, 127),
    "bfloat16": Format(8, -126, 127),
    "float16": Format(11, -14, 15, flushed=False),
}
# Layers of mixed precision give numbers of 16 bits.
FORMATS |= {mixed: FORMATS[half] for mixed, half in MIXED.items()}


def rounded(array: Array, precision: Precision) -> Array:
    """Round to the nearest number of a format, of two that are as near to the even one.

    Parameters
    ----------
    array
        Floats of any shape.
    precision
        What to round to.

    Returns
    -------
    rounded
        An array of that dtype; float32 for the formats of 16 bits, whose numbers it holds. Subnormal numbers stay, and
        what lies half a unit or more beyond the largest number becomes infinite.
    """
    if precision not in HALF:
        with np.errstate(over="ignore"):
            return array.astype(precision, copy=False)
    form = FORMATS[precision]
    wide = array.astype(np.float64)
    # frexp gives 1/2 <= |fraction| < 1. All scales are powers of two, so that rint alone rounds.
    exponent = np.frexp(wide)[1] - 1
    unit = np.ldexp(1.0, np.maximum(exponent, form.lowest) - (form.digits - 1))
    nearest = np.rint(wide / unit) * unit
    result: Array = np.where(np.abs(nearest) > form.largest, np.copysign(np.inf, wide), nearest).astype(np.float32)
    return result


def rounded_floats(arrays: Arrays, precision: Precision) -> dict[str, Array]:
    """Round those of several arrays that hold floats."""
    return {name: rounded(array, precision) if array.dtype.kind == "f" else array for name, array in arrays.items()}


def scaled_gradients(gradients: Mapping[str, Array], precision: Precision) -> dict[str, Array]:
    """Round gradients that a differentiation starts from; in 16 bits after scaling each by a power of two.

    The largest then lies between 1/2 and 1. Gradients of a mean over many samples would be too small for float16,
    against which loss scaling helps in the same way (Micikevicius et al. 2018, Mixed precision training, section 3.2).
    Differentiation is linear in them, so that nothing else changes.
    """
    if precision not in HALF:
        return rounded_floats(gradients, precision)
    found = {}
    for name, gradient in gradients.items():
        largest = float(np.abs(gradient).max(initial=0.0))
        scale = 2.0 ** -np.frexp(largest)[1] if 0.0 < largest < np.inf else 1.0
        found[name] = rounded(gradient.astype(np.float64) * scale, precision)
    return found
