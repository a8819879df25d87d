"""What all backends say and do about the precision they work in.

Mixed precision (Micikevicius et al. 2018, Mixed Precision Training, ICLR; Kalamkar et al. 2019, A Study of BFLOAT16 for
Deep Learning Training) has the names of Keras' policies, ``mixed_float16`` and ``mixed_bfloat16``, and one meaning:

====================================================  =========
weights, gradients by them, optimizer slots, averages  float32
checkpoints, results given away                        float32
inputs and outputs of layers, gradients by them        16 bits
products: dense layers, convolutions                   16 bits
weights of all layers but norms, as used in products   16 bits
norms: their statistics, scales, biases, arithmetic    float32
outputs of the graph, losses and their gradients       float32
metrics, gradients accumulated, updates, clipping      float32
====================================================  =========

Results of norms are rounded to 16 bits, as all layers' are. Sums within a product are the framework's, in float32.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from unitrain.backends.contract import Precision
from unitrain.spec.errors import InputError

MIXED: dict[Precision, Precision] = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}
"""Mixed precisions, and the one of 16 bits that each computes in."""

HALF: tuple[Precision, ...] = ("float16", "bfloat16", *MIXED)
"""The precisions whose results have 16 bits."""

MIXED_BACKENDS = ("torch", "keras")
"""The backends that compute in mixed precision, known without importing them."""


def check_precision(backend: str, allowed: Collection[Precision], precision: Precision) -> None:
    """Raise `InputError` when a backend does not compute in a precision."""
    if precision in allowed:
        return
    raise InputError(
        f"the backend '{backend}' does not compute in {precision}",
        field=("precision",),
        found=precision,
        allowed=", ".join(allowed),
        hint=f"the backends {' and '.join(MIXED_BACKENDS)} compute in mixed precision" if precision in MIXED else None,
    )


def computed_in(precision: Precision) -> Precision:
    """Return what layers compute in: of a mixed precision the one of 16 bits."""
    return MIXED.get(precision, precision)


def stored_in(precision: Precision) -> Precision:
    """Return what weights are held in: of a mixed precision float32."""
    return "float32" if precision in MIXED else precision


def host_dtype(precision: Precision) -> np.dtype[Any]:
    """Return the dtype in which numbers of a precision leave a program.

    NumPy has no bfloat16. float32 holds every number of both 16-bit formats, so both leave as float32.
    """
    return np.dtype(np.float32 if precision in HALF else precision)
