"""Checkpoints: weights, optimizer slots and training state in one safetensors file, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

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
        save_tensors(path, tensors, {STATE_NAME: json.dumps(self.state.to_plain())})

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint. Raises `InputError` when it is missing, torn, or something else."""
        tensors = load_tensors(path)
        try:
            state = TrainingState.from_plain(json.loads(_metadata(path)[STATE_NAME]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a checkpoint of a training run: {error}", file=str(path)) from None
        weights: dict[str, npt.NDArray[Any]] = {}
        slots: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for key, array in tensors.items():
            kind, _, rest = key.partition("/")
            if kind == _WEIGHTS:
                weights[rest] = array
            else:
                slot, _, name = rest.partition("/")
                slots.setdefault(slot, {})[name] = array
        return cls(weights, slots, state)


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as handle:
        return dict(handle.metadata() or {})
