"""A checkpoint: weights, optimizer slots and training state in one safetensors file with a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from unitrain.spec.errors import InputError
from unitrain.train.state import TrainingState
from unitrain.weights.store import load_tensors, save_tensors

_WEIGHTS, _SLOTS = "weights", "slots"
STATE_NAME = "training_state"


@dataclass(frozen=True)
class Checkpoint:
    """All that training needs to go on, on any backend: canonical names and layouts."""

    weights: Mapping[str, npt.NDArray[Any]]
    slots: Mapping[str, Mapping[str, npt.NDArray[Any]]]
    state: TrainingState

    def save(self, path: Path) -> None:
        """Write the checkpoint; the file is whole or absent, never torn."""
        tensors = {f"{_WEIGHTS}/{name}": array for name, array in self.weights.items()}
        for slot, arrays in self.slots.items():
            tensors.update({f"{_SLOTS}/{slot}/{name}": array for name, array in arrays.items()})
        state = self.state.to_plain()
        # One entry: safetensors writes several in an order that changes from process to process.
        entry = {"state": state, "sha256": _digest(tensors, state)}
        save_tensors(path, tensors, {STATE_NAME: json.dumps(entry)})

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint. Raises `InputError` when it is missing, torn, altered, or something else."""
        tensors = load_tensors(path)
        entry = _entry(path)
        if entry.get("sha256") != _digest(tensors, entry.get("state")):
            raise InputError("the checkpoint is damaged: its content is not what was written", file=str(path))
        weights: dict[str, npt.NDArray[Any]] = {}
        slots: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for key, array in tensors.items():
            kind, _, rest = key.partition("/")
            if kind == _WEIGHTS:
                weights[rest] = array
            else:
                slot, _, name = rest.partition("/")
                slots.setdefault(slot, {})[name] = array
        return cls(weights, slots, _state(entry, path))


def read_state(path: Path) -> TrainingState:
    """Read where a run stood from its checkpoint's header alone. Raises `InputError`."""
    return _state(_entry(path), path)


def _state(entry: Mapping[str, Any], path: Path) -> TrainingState:
    try:
        return TrainingState.from_plain(entry["state"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"not a checkpoint of a training run: {place}: {first['msg']}", file=str(path)) from None
    except KeyError as error:
        raise InputError(f"not a checkpoint of a training run: it has no {error}", file=str(path)) from None


def _entry(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as handle:
            entry = json.loads((handle.metadata() or {})[STATE_NAME])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"not a checkpoint of a training run: {error}", file=str(path)) from None
    return entry if isinstance(entry, dict) else {}


def _digest(tensors: Mapping[str, npt.NDArray[Any]], state: Any) -> str:
    """Return the SHA-256 of names, types, shapes and values, in the order of the names, and of the state."""
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"\0{name}\0{array.dtype.str}\0{tensors[name].shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
