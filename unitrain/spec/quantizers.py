"""How the weights of a kernel are rounded to few levels. Only names and numbers here; backends compute it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unitrain.spec.base import Spec

Bits = Annotated[int, Field(ge=4, le=8)]


class KernelQuantizer(Spec):
    """A kernel is computed with as integers times a scale: ``round(w / s) s``, ``s = max|w| / (2^(bits-1) - 1)``.

    Rounding is half to even. The gradient goes to the kernel as it is (straight through: no weight lies outside).
    Without ``per_channel`` there is one scale for the kernel, else one for each output channel.
    """

    bits: Bits = 8
    per_channel: bool = True


def kernel_levels(bits: int) -> tuple[int, int]:
    """Return the least and the largest of symmetric levels: -127 and 127 for 8 bits."""
    most = 2 ** (bits - 1) - 1
    return -most, most
