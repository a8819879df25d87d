"""What variants are made from: float models, prepared once, calibration samples, and ranges found once."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unitrain.backends.onnx.anatomy import Model, write_model
from unitrain.backends.onnx.deployed import Deployed, Level, deploy
from unitrain.backends.onnx.posttraining import Static, static_int8
from unitrain.backends.onnx.repair import Repaired, repair
from unitrain.spec.errors import InputError
from unitrain.spec.study import StudySpec
from unitrain.study.progress import Progress
from unitrain.study.results import Sensitivity
from unitrain.study.splits import Samples
from unitrain.study.subject import Array, Subject

if TYPE_CHECKING:
    from unitrain.train.inference import TrainedRun

# Samples that go through the calibrated model at a time.
_BATCH = 32


@dataclass(frozen=True)
class Built:
    """A variant that was made.

    Parameters
    ----------
    model
        The file's content.
    level
        How far onnxruntime may rewrite it.
    source
        The float model it was made from: the key of `Workshop.floats`.
    notes
        What was done.
    """

    model: Model
    level: Level = "all"
    source: str = "float"
    notes: tuple[str, ...] = ()


@dataclass
class Workshop:
    """Shared by all variants of a study.

    Parameters
    ----------
    subject
        What is studied.
    options
        Settings of the study.
    seed
        Keys what is drawn.
    progress
        Told what is being done.
    floats
        Float models by name: ``float`` is the subject's own, others are pruned ones.
    sensitivity
        What was found of single operators, the worst first.
    said
        Float model to what was done to get it.
    """

    subject: Subject
    options: StudySpec
    seed: int = 0
    progress: Progress = field(default_factory=Progress)
    floats: dict[str, Model] = field(default_factory=dict)
    sensitivity: list[Sensitivity] = field(default_factory=list)
    said: dict[str, list[str]] = field(default_factory=dict)
    _repaired: dict[str, Repaired] = field(default_factory=dict)
    _folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)

    def __post_init__(self) -> None:
        self.floats["float"] = self.subject.model

    @property
    def trained(self) -> TrainedRun:
        """The run whose graph can be rewritten. Raises `InputError` where an ONNX file is studied."""
        if self.subject.trained is None:
            raise InputError("it rewrites the graph of a trained run, and this is an ONNX file")
        return self.subject.trained

    @property
    def teacher(self) -> Path | None:
        """The run that teaches what is pruned, where the study asks for it."""
        return self.trained.folder.path if self.options.distill else None

    def prepared(self, source: str = "float") -> Repaired:
        """Return a float model in the form that quantisers read, with what was done to it."""
        if source not in self._repaired:
            self._repaired[source] = repair(self.floats[source])
        return self._repaired[source]

    def static(self, options: Static, source: str = "float") -> Built:
        """Quantise a float model with ranges of the calibration samples, which are found once for each method."""
        prepared = self.prepared(source)
        whole = _equal_batches(self.subject.samples.calibration, self.subject.fixed_batch)
        ranges = Path(self._folder.name) / f"{source}-{options.calibration}.json"
        told = _silent if ranges.is_file() else self.progress.within(f"calibrating, {options.calibration}", len(whole))
        model = static_int8(prepared.model, whole, options, ranges, told)
        return Built(model, source=source, notes=(*self.said.get(source, ()), *prepared.notes))

    def outputs(self, model: Model, samples: Samples) -> dict[str, Array]:
        """Run a model on samples."""
        path = Path(self._folder.name) / "tried.onnx"
        write_model(model, path)
        return predict(deploy(path, threads=self.options.threads), samples, self.subject.fixed_batch)

    def close(self) -> None:
        """Throw away what was kept in files."""
        self._folder.cleanup()


def _silent(done: int) -> None:
    """Ranges that were found before are not told again."""


def predict(deployed: Deployed, samples: Samples, fixed_batch: int | None) -> dict[str, Array]:
    """Predict samples; where the model takes one batch size only the last batch is filled up and cut again."""
    if fixed_batch is None:
        return deployed.predict(samples.inputs, _BATCH)
    count = len(samples)
    filled = samples.take(np.arange(-(-count // fixed_batch) * fixed_batch) % count)
    return {name: values[:count] for name, values in deployed.predict(filled.inputs, fixed_batch).items()}


def _equal_batches(samples: Samples, fixed: int | None) -> list[dict[str, Array]]:
    """Cut samples into batches of one size, as histograms of activations need; at most one a batch is left out."""
    size = fixed or len(samples) // -(-len(samples) // _BATCH)
    if len(samples) < size:
        samples = samples.take(np.arange(size) % len(samples))
    return samples.take(np.arange(len(samples) // size * size)).batches(size)
