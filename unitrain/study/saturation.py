"""How many predictions of an int8 model change on CPUs without VNNI, where sums of products saturate."""

from __future__ import annotations

import numpy as np

from unitrain.backends.onnx.anatomy import Model
from unitrain.backends.onnx.saturation import predictions
from unitrain.study.quality import Task, classes_of
from unitrain.study.splits import Samples, limited

# Samples that are looked at, the first of the test samples, and how many at a time.
_SAMPLES, _BATCH = 128, 16


def changed(model: Model, samples: Samples, task: Task, fixed_batch: int | None) -> tuple[int, int]:
    """Return how many predictions change, and of how many: classes, or samples of which any number does."""
    size = fixed_batch or _BATCH
    samples = limited(samples, _SAMPLES)
    changes = count = 0
    for batch in samples.batches(size):
        if len(next(iter(batch.values()))) < size and fixed_batch:
            break
        exact, cut = (predictions(model, batch, saturate=saturate)[task.output] for saturate in (False, True))
        if task.kind == "classes":
            differs = classes_of(exact) != classes_of(cut)
        else:
            differs = (exact != cut).reshape(len(exact), -1).any(1)
        changes, count = changes + int(np.sum(differs)), count + differs.size
    return changes, count


def told(name: str, changes: int, count: int) -> str:
    """Say it in a sentence."""
    return (
        f"{name}: on CPUs without VNNI {changes} of {count} predictions change, as sums of two products saturate there"
        if changes
        else f"{name}: on CPUs without VNNI none of {count} predictions changes"
    )
