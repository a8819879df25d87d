"""Looking at many runs: what became of each, what two differ in, and removing those that are named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from unitrain.folders import remove_folder, size_of
from unitrain.spec.errors import FieldPath, InputError, format_field
from unitrain.spec.yaml import read_yaml
from unitrain.train.lock import NAME as LOCK
from unitrain.train.lock import is_locked, locked
from unitrain.train.run_folder import RunFolder

# What a run, and commands about it, write into its folder.
_OURS = frozenset(
    {
        *(LOCK, "recipe.yaml", "model.yaml", "preprocessing.json", "environment.json", "metrics.jsonl", "result.json"),
        *("weights.safetensors", "report.html", "checkpoints", "tensorboard", "profile"),
    }
)


@dataclass(frozen=True)
class RunSummary:
    """One run at a glance.

    Parameters
    ----------
    state
        ``running``; how it ended, as `RunEnd.reason`; ``broken off`` when its process is gone and it did not end; or
        ``unreadable``.
    monitor, value
        The validation value that decides what is kept, and the best of it; ``loss`` of the training data where there
        is no validation.
    epoch, epochs
        Done and planned.
    seconds
        Of training.
    """

    path: str
    state: str
    backend: str = ""
    device: str = ""
    epoch: int = 0
    epochs: int = 0
    monitor: str = ""
    value: float | None = None
    seconds: float = 0.0
    started: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return asdict(self)


def find_runs(folder: Path) -> list[RunSummary]:
    """Summarise the runs in a folder, the oldest first; a run that is named itself is one.

    Raises
    ------
    InputError
        The folder is not there.
    """
    if not folder.is_dir():
        raise InputError("no such folder", file=str(folder), hint="runs lie in `runs/` unless --out names a place")
    places = [folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())]
    found = [summarize(RunFolder(place)) for place in places if RunFolder(place).recipe.is_file()]
    return sorted(found, key=lambda run: (_moment(run.started), run.path))


def summarize(folder: RunFolder) -> RunSummary:
    """Summarise one run; what cannot be read is said in its state."""
    path = str(folder.path)
    running = is_locked(folder.path)
    try:
        recipe = _mapping(read_yaml(folder.recipe).data)
        environment = folder.read_environment()
        history = folder.history()
        result = _mapping(folder.read_json(folder.result)) if folder.result.is_file() else {}
        training = _mapping(recipe.get("training") or {})
        now = _mapping((environment.get("resumed") or [environment])[-1])
        monitor, value = _best(history, training.get("keep_best", "loss") or "loss")
        return RunSummary(
            path,
            "running" if running else str(result.get("reason", "broken off")),
            str(now.get("backend", "")),
            str(now.get("device", "")),
            int(history[-1]["epoch"]) if history else 0,
            int(training.get("epochs", 0)),
            monitor,
            value,
            float(result.get("seconds") or (history[-1]["seconds"] if history else 0.0)),
            str(environment.get("started", "")),
        )
    except (InputError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return RunSummary(path, "running" if running else "unreadable")


def settings_of(folder: RunFolder) -> dict[str, Any]:
    """Return what a run was made of, flat: fields of recipe and model, backend, device, versions."""
    environment = folder.read_environment()
    now = (environment.get("resumed") or [environment])[-1]
    named = {
        "": {key: value for key, value in read_yaml(folder.recipe).data.items() if key != "model"},
        "model.": read_yaml(folder.model).data,
        "environment.": {key: now.get(key) for key in ("backend", "device", "execution", "python", "packages")},
    }
    return {prefix + format_field(path): value for prefix, data in named.items() for path, value in _leaves(data, ())}


def differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return field and both values where two flat mappings differ; None where one lacks it."""
    fields = dict.fromkeys((*one, *two))
    return [(field, one.get(field), two.get(field)) for field in fields if one.get(field) != two.get(field)]


def curves_of(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Return the numbers of a run's history by ``training loss``, ``validation loss`` ...: epochs and values."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in history:
        for part in ("training", "validation"):
            for label, value in line[part].items():
                if isinstance(value, (int, float)):
                    curves.setdefault(f"{part} {label}", []).append((int(line["epoch"]), float(value)))
    return curves


def check_removable(path: Path) -> RunFolder:
    """See that a path may be removed as a run.

    Raises
    ------
    InputError
        It is no run, a symbolic link, in use, or holds files that are not a run's.
    """
    if path.is_symlink():
        raise InputError("this is a symbolic link; name the run that it points to", file=str(path))
    folder = RunFolder.open(path)
    if is_locked(path):
        raise InputError("the run is in use: it is training", file=str(path))
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in _OURS and not _is_leftover(entry))
    if others:
        raise InputError(
            "the run folder holds files that are not the run's",
            file=str(path),
            found=", ".join(others[:8]),
            hint="move them, and clean again",
        )
    return folder


def remove(folder: RunFolder, *, checkpoints_only: bool = False) -> int:
    """Remove a run, or its checkpoints alone; return the bytes that are free again. Raises as `check_removable`."""
    check_removable(folder.path)
    target = folder.checkpoints.path if checkpoints_only else folder.path
    with locked(folder.path):
        size = size_of(target)
        if target.is_dir():
            remove_folder(target)
    return size


def _is_leftover(entry: Path) -> bool:
    return entry.name.startswith(".") and entry.name.endswith(".tmp")


def _best(history: Sequence[Mapping[str, Any]], monitor: str) -> tuple[str, float | None]:
    """Return what is monitored and its value in the epoch that is best, or last where none is called so."""
    lines = [line for line in history if line.get("best")] or list(history)
    if not lines:
        return monitor, None
    values = lines[-1]["validation"] or lines[-1]["training"]
    value = values.get(monitor, values.get("loss"))
    return (monitor if monitor in values else "loss"), value if isinstance(value, (int, float)) else None


def _leaves(value: Any, path: FieldPath) -> Iterator[tuple[FieldPath, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not a mapping")
    return value


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
