"""What earlier runs found when they tried forms of execution: one small file for each model, shape and machine."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from unitrain.backends.versions import versions
from unitrain.machine import cpu_line, processors
from unitrain.train.tuner import Trial, Tuner

_TRIALS = TypeAdapter(tuple[Trial, ...], config={"defer_build": True})


def cache_folder() -> Path:
    """Return where files of the cache lie: ``UNITRAIN_CACHE``, else ``unitrain`` in the user's cache folder."""
    own = os.environ.get("UNITRAIN_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "unitrain"


class KnownTrials:
    """Trials kept in a folder. What cannot be read or written counts as not there: it can be tried again."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / "tuning"

    def load(self, tuner: Tuner) -> tuple[Trial, ...] | None:
        """Return what was found for the same model, shape, settings and machine."""
        try:
            trials = _TRIALS.validate_json(self._file(tuner).read_bytes())
        except (OSError, ValidationError):
            return None
        names = {one.name for one in tuner.backend.candidates(tuner.graph, tuner.settings)}
        return trials if trials and {trial.candidate for trial in trials} == names else None

    def store(self, tuner: Tuner, trials: tuple[Trial, ...]) -> None:
        """Keep what was found; whoever reads meanwhile sees the old file or the new one."""
        file = self._file(tuner)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(_TRIALS.dump_json(trials, indent=1))
                os.replace(name, file)
            except OSError:
                Path(name).unlink(missing_ok=True)
        except OSError:
            return

    def clear(self) -> int:
        """Remove all; return how many there were."""
        files = list(self.folder.glob("*.json"))
        for file in files:
            file.unlink(missing_ok=True)
        return len(files)

    def _file(self, tuner: Tuner) -> Path:
        return self.folder / f"{describe(tuner)}.json"


def describe(tuner: Tuner) -> str:
    """Return a word for all that speed depends on: the program, its shapes and settings, versions and the machine."""
    updater, losses = tuner.rule.updater.spec, tuner.rule.losses
    said = {
        "backend": tuner.backend.name,
        "settings": {**asdict(tuner.settings), "seed": 0, "execution": None},
        "inputs": {name: str(given) for name, given in tuner.graph.inputs.items()},
        "nodes": [
            (node.name, node.layer.to_plain(), node.inputs, node.output_shape, dict(node.parameters))
            for node in tuner.graph.nodes
        ],
        "outputs": dict(tuner.graph.outputs),
        "losses": {name: (factor, str(loss)) for name, (factor, loss) in losses.items()},
        "metrics": [(label, output) for label, output, _ in tuner.rule.metrics],
        "optimizer": updater.to_plain(),
        "batch": tuner.batches.batch_size,
        "kinds": {name: str(array.dtype) for name, array in tuner.data.inputs.items()},
        "versions": versions([tuner.backend.name]),
        "processor": (
            cpu_line("model name"),
            processors(),
            *(os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_CORETYPE")),
        ),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:32]
