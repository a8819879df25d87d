"""How many predictions of an int8 model change on CPUs without VNNI, where sums of products saturate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unitrain.backends.onnx.anatomy import Model
from unitrain.backends.onnx.saturation import is_static, predictions
from unitrain.study.progress import Progress
from unitrain.study.quality import Task, classes_of
from unitrain.study.results import Row
from unitrain.study.splits import Samples, limited
from unitrain.study.subject import Subject

# Samples that are looked at, the first of the test samples, and how many at a time.
_SAMPLES, _BATCH = 128, 16


def check_saturation(subject: Subject, made: Sequence[tuple[Row, Model]], progress: Progress) -> None:
    """Compute what is static int8 as such CPUs do, on some of the test samples; tell it in the rows."""
    static = [(row, model) for row, model in made if is_static(model)]
    progress.begin("checking saturation", len(static))
    for row, model in static:
        progress.tell(row.name)
        try:
            changes, count = changed(model, subject.samples.test, subject.task, subject.fixed_batch)
        except Exception as error:  # ONNX's reference does not know what onnxruntime alone computes
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            row.notes.append(f"{row.name}: saturation could not be checked: {reason}")
        else:
            row.saturated = changes / count
            row.notes.append(_told(row.name, changes, count))
        progress.step()


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


def _told(name: str, changes: int, count: int) -> str:
    """Say it in a sentence."""
    return (
        f"{name}: on CPUs without VNNI {changes} of {count} predictions change, as sums of two products saturate there"
        if changes
        else f"{name}: on CPUs without VNNI none of {count} predictions changes"
    )
