"""What is said of a run in a line: its start, an epoch, its end, and the values measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from unitrain.train.events import EpochDone, RunEnd, RunStart


def show_values(values: Mapping[str, Any]) -> str:
    """Write ``loss 0.1234  accuracy 0.9876``; tables such as a confusion matrix are left out."""
    shown = []
    for label, value in values.items():
        if isinstance(value, (int, float)):
            shown.append(f"{label} {value:.4g}" if abs(value) >= 100 else f"{label} {value:.4f}")
    return "  ".join(shown)


def show_start(event: RunStart) -> str:
    """Describe the run: a line for the model, and one for each thing to know of the data."""
    lines = [
        f"{event.name}: {event.parameters:,} parameters on {event.backend} ({event.device})"
        + ("" if event.precision == "float32" else f" in {event.precision}"),
        *event.notes,
    ]
    return "\n".join(lines)


def show_epoch(event: EpochDone, epochs: int) -> str:
    """Describe an epoch in one line."""
    width = len(str(epochs))
    parts = [f"epoch {event.epoch:>{width}}/{epochs}", f"training: {show_values(event.training)}"]
    if event.validation:
        parts.append(f"validation: {show_values(event.validation)}" + (" *" if event.best else ""))
    parts.append(f"lr {event.learning_rate:.3g}")
    parts.append(f"{show_rate(event.samples_per_second)} samples/s")
    return "  |  ".join(parts)


def show_end(event: RunEnd) -> str:
    """Describe how the run ended."""
    lines = [f"{event.message} ({_duration(event.seconds)}, {event.updates:,} updates)"]
    if event.skipped:
        updates = "1 update was" if event.skipped == 1 else f"{event.skipped:,} updates were"
        lines.append(
            f"{updates} skipped, where gradients overflowed float16; the loss scale ended at {event.loss_scale:,.0f}"
        )
    if event.best_epoch is not None:
        lines.append(f"kept the weights of epoch {event.best_epoch} (*)")
    for part, values in (("validation", event.validation), ("test", event.test)):
        if values:
            lines.append(f"{part}: {show_values(values)}")
        if event.baseline.get(part):
            lines.append(f"{part}, seasonal naive: {show_values(event.baseline[part])}")
    return "\n".join(lines)


def show_rate(samples: float) -> str:
    """Write samples a second: ``512``, ``12.3k``."""
    if not math.isfinite(samples) or samples <= 0:
        return "-"
    return f"{samples / 1000:.1f}k" if samples >= 10_000 else f"{samples:,.0f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
