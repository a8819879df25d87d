"""The run folder: everything about one run, complete on its own.

``recipe.yaml`` and ``model.yaml`` as resolved, ``weights.safetensors`` (the kept ones), ``checkpoints/``,
``preprocessing.json``, ``metrics.jsonl``, ``environment.json``, ``result.json`` and ``report.html``.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from importlib import metadata
from pathlib import Path
from types import NoneType
from typing import Any

from unitrain.folders import walk
from unitrain.spec.errors import InputError, did_you_mean
from unitrain.train.checkpoint import Checkpoint
from unitrain.train.checkpoints import Checkpoints
from unitrain.train.events import EpochDone, Observer, RunEnd, RunStart
from unitrain.train.lock import NAME as LOCK
from unitrain.train.lock import locked
from unitrain.weights.store import remove_leftovers, save_tensors, write_text

_PACKAGES = (
    "unitrain",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "tensorflow",
    "keras",
    "pyarrow",
    "pillow",
)

# What others rely on in environment.json.
_ENVIRONMENT = {
    "backend": str,
    "device": str,
    "seed": int,
    "deterministic": bool,
    "started": str,
    "recipe_folder": str,
    "data": list,
}


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run folder, and the reading and writing of its small files."""

    path: Path

    @classmethod
    def create(cls, requested: Path | None, name: str, backend: str) -> RunFolder:
        """Make a new folder: the one asked for, or ``runs/<name>-<backend>-<time>``.

        Raises
        ------
        InputError
            The folder holds something already, or cannot be made.
        """
        if requested is not None:
            if requested.exists() and (not requested.is_dir() or not _is_unused(requested)):
                raise InputError(
                    "the run folder is there already and is not empty",
                    file=str(requested),
                    hint="name another folder, or go on with `unitrain fit --resume FOLDER`",
                )
            path = requested
        else:
            stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
            path = Path("runs") / f"{name}-{backend}-{stamp}"
        try:
            path = path if requested is not None else _new_folder(path)
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the run folder cannot be made: {error.strerror}", file=str(path)) from None
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other processes, and clear away what killed ones left half written.

        Raises
        ------
        InputError
            Another run holds it, or it cannot be written.
        """
        for entry in walk(self.path):
            # What is written there would be written elsewhere.
            if entry.is_symlink():
                raise InputError("a run folder holds no symbolic links", file=entry.path, found=os.readlink(entry.path))
        with locked(self.path):
            for folder in (self.path, self.checkpoints.path):
                remove_leftovers(folder)
            yield

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run. Raises `InputError` when the folder is not a run."""
        folder = cls(path)
        if not path.is_dir():
            siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise InputError("no such run folder", file=str(path), hint=did_you_mean(path.name, siblings))
        if not folder.recipe.is_file() or not folder.model.is_file():
            raise InputError(
                "the folder is not a run: it has no recipe.yaml and model.yaml",
                file=str(path),
                hint=f"a run broken off before its first step begins anew: unitrain fit RECIPE --out {path}"
                if _is_unused(path)
                else None,
            )
        return folder

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def model(self) -> Path:
        """The model's specification."""
        return self.path / "model.yaml"

    @property
    def weights(self) -> Path:
        """The kept weights: the best ones, or the last."""
        return self.path / "weights.safetensors"

    @property
    def initial(self) -> Path:
        """Weights that training started from, where they came with the run."""
        return self.path / "initial.safetensors"

    @property
    def checkpoints(self) -> Checkpoints:
        """Where the run stood: the last times, and when it was best."""
        return Checkpoints(self.path / "checkpoints")

    @property
    def preprocessing(self) -> Path:
        """What the preprocessing learnt from the training data."""
        return self.path / "preprocessing.json"

    @property
    def metrics(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def environment(self) -> Path:
        """Versions, seed, device and command."""
        return self.path / "environment.json"

    @property
    def report(self) -> Path:
        """The page with curves and figures."""
        return self.path / "report.html"

    @property
    def result(self) -> Path:
        """How the run ended."""
        return self.path / "result.json"

    def keep(self, checkpoint: Checkpoint, keep_last: int) -> None:
        """Write a checkpoint; the lines of metrics that stand before it are on the disk first."""
        if self.metrics.is_file():
            with self.metrics.open("rb") as handle:
                os.fsync(handle.fileno())
        self.checkpoints.write(checkpoint, keep_last)

    def keep_weights(self, weights: Any) -> None:
        """Write the weights that the run gives."""
        save_tensors(self.weights, weights, {"format": "unitrain canonical weights"})

    def write_json(self, path: Path, value: Any) -> None:
        """Write a JSON file; what JSON cannot say (NaN, infinity) becomes null."""
        write_text(path, json.dumps(json_values(value), indent=2, allow_nan=False) + "\n")

    def read_json(self, path: Path) -> Any:
        """Read a JSON file. Raises `InputError` when it is missing or not JSON."""
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError("the run folder lacks this file", file=str(path)) from None
        except (OSError, ValueError) as error:
            raise InputError(f"not readable as JSON: {error}", file=str(path)) from None

    def read_environment(self) -> dict[str, Any]:
        """Read ``environment.json``. Raises `InputError` when it lacks something or holds something else."""
        found = self.read_json(self.environment)
        for name, kind in _ENVIRONMENT.items():
            if not isinstance(found, dict) or not isinstance(found.get(name), kind):
                message = f"this is no run's environment: '{name}' is missing or not what it was"
                raise InputError(message, file=str(self.environment))
        resumed = found.setdefault("resumed", [])
        if not isinstance(resumed, list) or not all(isinstance(item, dict) for item in resumed):
            raise InputError("this is no run's environment: 'resumed' is not what it was", file=str(self.environment))
        return dict(found)

    def history(self) -> list[dict[str, Any]]:
        """Return the lines of ``metrics.jsonl``; one that a killed process has not written to its end is left out."""
        if not self.metrics.is_file():
            return []
        try:
            whole, _, _ = self.metrics.read_text(encoding="utf-8").rpartition("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read: {error}", file=str(self.metrics)) from None
        return [self._epoch(line, number) for number, line in enumerate(whole.split("\n"), start=1) if line]

    def _epoch(self, text: str, number: int) -> dict[str, Any]:
        """Read one line of the metrics. Raises `InputError` when it is not what `MetricsLog` writes."""
        try:
            line = json.loads(text)
            sound = (
                line.keys() == {item.name for item in fields(EpochDone)}
                and type(line["epoch"]) is int
                and all(isinstance(line[part], dict) for part in ("training", "validation"))
                and all(isinstance(line[name], (int, float, NoneType)) for name in ("learning_rate", "seconds"))
            )
        except (ValueError, AttributeError, RecursionError):
            sound = False
        if not sound:
            raise InputError("this is no line of a run's metrics", file=str(self.metrics), line=number)
        return dict(line)


def _is_unused(path: Path) -> bool:
    """Tell whether a folder is empty, or holds only what is written before a recipe: a run that never began."""
    before = {LOCK, "checkpoints", "model.yaml", "preprocessing.json", "environment.json"}
    found = [entry.name for entry in path.iterdir()]
    return all(name in before or (name.startswith(".") and name.endswith(".tmp")) for name in found) and (
        "checkpoints" in found or not found
    )


def _new_folder(path: Path) -> Path:
    """Make a folder that was not there: this one, or with a number behind its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, wanted = 1, path
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            count += 1
            path = wanted.with_name(f"{wanted.name}-{count}")
        else:
            return path


class MetricsLog(Observer):
    """Appends one JSON line an epoch to ``metrics.jsonl``."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_start(self, event: RunStart) -> None:
        """Drop the lines of epochs that a resumed run does again, and the end that it goes beyond."""
        self.folder.result.unlink(missing_ok=True)
        kept = [line for line in self.folder.history() if line["epoch"] <= event.first_epoch]
        write_text(self.folder.metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def on_epoch(self, event: EpochDone) -> None:
        """Append the epoch."""
        with self.folder.metrics.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(json_values(asdict(event)), allow_nan=False) + "\n")

    def on_end(self, event: RunEnd) -> None:
        """Write ``result.json``."""
        self.folder.write_json(self.folder.result, asdict(event))


def describe_environment(**more: Any) -> dict[str, Any]:
    """Return versions and platform, with ``more`` added."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "command": sys.argv,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        **more,
    }


def json_values(value: Any) -> Any:
    """Return plain values for JSON: tuples as lists, and null for what JSON cannot say (NaN, infinity)."""
    if isinstance(value, dict):
        return {key: json_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
