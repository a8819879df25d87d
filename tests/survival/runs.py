"""A small run with all that a run can remember, and how two runs are compared bit by bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from iris import iris_recipe

from unitrain.train.run_folder import RunFolder
from unitrain.weights.store import load_tensors

ROOT = Path(__file__).parents[2]

# Dropout, running statistics, moving averages, a plateau, patience, accumulation, a short last batch, sums that round.
RECIPE = iris_recipe("""\
schedule: {type: plateau, patience: 1}
metrics: [accuracy, perplexity]
training: {epochs: 12, batch_size: 15, accumulate: 2, checkpoint_steps: 3, early_stopping: {patience: 9}}
""")


def environment() -> dict[str, str]:
    """Return the environment of a process that finds this project and computes on one thread."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def unitrain(*arguments: str | Path, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "unitrain", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(), check=False, **options
    )


def differences(one: Path, two: Path) -> list[str]:
    """Compare two runs that have ended: weights, optimizer state, counters, memories and metrics, but not times."""
    found = []
    folders = RunFolder(one), RunFolder(two)
    last = [folder.checkpoints.newest() for folder in folders]
    assert last[0] is not None
    assert last[1] is not None
    tensors = [
        {
            **{f"kept {name}": array for name, array in load_tensors(folder.weights).items()},
            **{f"last {name}": array for name, array in checkpoint.weights.items()},
            **{
                f"{slot} of {name}": array
                for slot, arrays in checkpoint.slots.items()
                for name, array in arrays.items()
            },
        }
        for folder, checkpoint in zip(folders, last, strict=True)
    ]
    if tensors[0].keys() != tensors[1].keys():
        found.append("names of tensors")
    found += [name for name, array in tensors[0].items() if not np.array_equal(array, tensors[1].get(name))]
    states = [{**checkpoint.state.to_plain(), "seconds": 0} for checkpoint in last]
    found += [name for name, value in states[0].items() if value != states[1][name]]
    timeless = {"seconds": 0, "samples_per_second": 0}
    lines = [[{**line, **timeless} for line in folder.history()] for folder in folders]
    if lines[0] != lines[1]:
        found.append("metrics")
    ends = [{**folder.read_json(folder.result), "seconds": 0} for folder in folders]
    return found + [name for name, value in ends[0].items() if value != ends[1][name]]
