"""What is studied: a float model with its samples and what is judged of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.onnx import emit
from unitrain.backends.onnx.anatomy import Model
from unitrain.graph.passes.quantize import without_fake_quantize
from unitrain.spec.errors import InputError
from unitrain.study.quality import Task
from unitrain.study.splits import Samples, Splits, cut, limited, make_splits
from unitrain.train.inference import TrainedRun
from unitrain.train.session import prepare_data
from unitrain.weights.random import stream

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Subject:
    """A model to be studied.

    Parameters
    ----------
    name
        What files are called.
    source
        The run folder or file it came from.
    model
        The float model, as ``onnx.ModelProto``.
    samples
        The splits; where ``speed_only``, random inputs stand in for all of them.
    task
        What is judged.
    speed_only
        Inputs are random: nothing is said of quality.
    trained
        The run, where it is one: its graph can be rewritten and trained further.
    fixed_batch
        The one batch size that the model takes, or None for any.
    notes
        What a user should know.
    """

    name: str
    source: Path
    model: Model
    samples: Splits
    task: Task
    speed_only: bool = False
    trained: TrainedRun | None = None
    fixed_batch: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``accuracy``, ``fidelity`` or ``speed only``."""
        return "speed only" if self.speed_only else "accuracy" if self.task.labelled else "fidelity"

    def feeds(self, batch: int) -> dict[str, Array]:
        """Return one batch of selection samples, again from the first where there are too few."""
        samples = self.samples.selection
        return dict(samples.take(np.arange(batch) % len(samples)).inputs)


def from_run(path: Path, calibration: int, seed: int) -> Subject:
    """Read a trained run.

    Calibration and selection samples are drawn from its validation part, which training has not seen but for the
    choice of an epoch; test samples are its test part.

    Raises
    ------
    InputError
        The run cannot be read, or its data has neither validation nor test samples.
    """
    trained = TrainedRun.open(path, backend="numpy", device="cpu")
    loaded = trained.loaded
    prepared = prepare_data(loaded, trained.preprocessing)
    name, loss = next(iter(loaded.losses.items()))
    kind = loss.loss.type
    task = Task(
        name,
        "classes" if kind in ("cross_entropy", "binary_cross_entropy") else "numbers",
        labelled=True,
        ignored=getattr(loss.loss, "ignore_index", None),
    )
    notes = []
    if len(loaded.losses) > 1:
        notes.append(f"of the {len(loaded.losses)} outputs that are trained, '{name}' is judged")

    def samples(part: Any) -> Samples:
        return Samples(part.inputs, part.targets[name])

    generator = stream(seed, "study", "splits")
    validation, test = prepared.validation, prepared.test
    if validation is not None and test is not None:
        held = samples(validation)
        share = min(0.5, calibration / len(held))
        parts = cut(held, {"calibration": share, "selection": 1 - share}, generator)
        parts["test"] = samples(test)
        notes.append("calibration and selection samples are the run's validation part, test samples its test part")
    elif validation is not None or test is not None:
        which, part = ("validation", validation) if test is None else ("test", test)
        assert part is not None
        held = samples(part)
        share = min(0.25, calibration / len(held))
        parts = cut(held, {"calibration": share, "selection": 0.5 - share / 2, "test": 0.5 - share / 2}, generator)
        notes.append(
            f"the run has no {'test' if test is None else 'validation'} part: its {which} part was cut into "
            "calibration, selection and test samples"
            + (", on which the run had chosen its epoch" if test is None else "")
        )
    else:
        raise InputError(
            "the run's data has neither validation nor test samples, so that nothing can be chosen or tested",
            file=str(path),
            hint="give the recipe `split: {validation: 0.1, test: 0.1}` and train again",
        )
    splits = make_splits(
        prepared.train.inputs,
        limited(parts["calibration"], calibration),
        _in_memory(parts["selection"]),
        _in_memory(parts["test"]),
        tuple(notes),
        drop=True,
    )
    weights = trained.program.weights()
    graph, said = loaded.graph, []
    if loaded.recipe.quantization is not None:
        graph, _ = without_fake_quantize(graph)
        said.append("the run trained with rounded numbers: fp32 are its weights without the rounding")
    model = emit(graph, {key: np.asarray(weights[key], np.float32) for key in graph.parameters})
    return Subject(loaded.recipe.name, path, model, splits, task, trained=trained, notes=tuple(said))


def _in_memory(samples: Samples) -> Samples:
    """Read samples that stream from their files."""
    if all(isinstance(values, np.ndarray) for values in samples.inputs.values()):
        return samples
    return samples.take(np.arange(len(samples)))


def shapes_of(feeds: Mapping[str, Array]) -> str:
    """Write shapes as ``x [1, 3, 224, 224]``."""
    return ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
