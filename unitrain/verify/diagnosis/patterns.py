"""What can be said of a wrong tensor without knowing what computed it."""

from __future__ import annotations

import numpy as np

from unitrain.backends.precision import HALF
from unitrain.verify.diagnosis.evidence import Array, Evidence


def describe(evidence: Evidence) -> str:
    """Describe the tensors of a layer that fail, in the first words that fit all of them; or nothing."""
    failing = evidence.failing
    if not failing:
        return ""
    pairs = [(evidence.found[key].astype(np.float64), evidence.right[key]) for key in failing]
    text = describe_tensors(pairs, half=evidence.precision in HALF)
    if not text:
        return ""
    labels = list(dict.fromkeys(label for _, label in failing))
    modes = {mode for mode, _ in failing}
    where = f" in {next(iter(modes))}" if len(modes) == 1 and len(evidence.tasks) > 1 else ""
    return f"{', '.join(labels[:3])}{where}: {text}"


def describe_tensors(pairs: list[tuple[Array, Array]], *, half: bool = False) -> str:
    """Say how wrong tensors differ from the right ones, each pair ``(found, right)``; nothing when no words fit all.

    With ``half`` they were to be computed in 16 bits, so that to be as exact as that explains nothing.
    """
    if any(found.shape != right.shape for found, right in pairs):
        found, right = next((f, r) for f, r in pairs if f.shape != r.shape)
        return f"the shape is {list(found.shape)}, not {list(right.shape)}"
    if any(not np.isfinite(found).all() for found, right in pairs if np.isfinite(right).all()):
        return "not finite where the reference is"
    if not all(np.isfinite(found).all() for found, _ in pairs):
        return ""
    if all(not np.any(found) for found, _ in pairs):
        return "zero throughout"
    factors = [_factor(found, right) for found, right in pairs]
    if all(factor is not None for factor in factors) and not all(
        abs(f - 1.0) <= 1e-3 for f in factors if f is not None
    ):
        low, high = min(f for f in factors if f is not None), max(f for f in factors if f is not None)
        if high - low <= 1e-3 * abs(high):
            return f"{_plain(high)} times the reference's"
        return "multiples of the reference's: " + ", ".join(_plain(f) for f in factors[:4] if f is not None)
    if all(_rearranged(found, right) for found, right in pairs):
        return "the reference's numbers in another order"
    offsets = [found - right for found, right in pairs]
    if all(np.ptp(offset) <= 1e-4 * abs(offset.mean()) for offset in offsets):
        return f"off by a constant, {offsets[0].mean():.6g}"
    errors = [_relative(found, right) for found, right in pairs]
    for name, bits in () if half else (("float16", 11), ("bfloat16", 8), ("TensorFloat-32", 11)):
        unit = 2.0**-bits
        if all(unit / 16 <= error <= 16 * unit for error in errors):
            return f"about as exact as {name}: computed in half precision?"
    return ""


def _factor(found: Array, right: Array) -> float | None:
    """Return c where found = c * right, within a thousandth; None where it is not."""
    size = float(np.square(right).sum())
    if size == 0.0:
        return None
    factor = float((found * right).sum() / size)
    rest = float(np.square(found - factor * right).sum())
    return factor if factor != 0.0 and rest <= 1e-8 * factor**2 * size else None


def _rearranged(found: Array, right: Array) -> bool:
    ours, theirs = np.sort(found, axis=None), np.sort(right, axis=None)
    room = 1e-5 * float(np.abs(theirs).max())
    near = np.allclose(found, right, rtol=1e-4, atol=room)
    return found.size > 2 and not near and bool(np.allclose(ours, theirs, rtol=1e-4, atol=room))


def _relative(found: Array, right: Array) -> float:
    size = float(np.sqrt(np.mean(np.square(right))))
    return float(np.sqrt(np.mean(np.square(found - right)))) / size if size else np.inf


def _plain(factor: float) -> str:
    return f"{factor:.4g}"
