"""Load time and peak memory of a file in a process of its own, where nothing is left over from what was done before."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.fresh_process import answer_of
from unitrain.machine import peak_memory, reset_peak_memory

# Of a process that imports onnxruntime on a busy machine and loads a large file.
_SECONDS = 120.0


@dataclass(frozen=True)
class Fresh:
    """Seconds of loading, and bytes by which the process grew at most until one call was done; None if not told."""

    load_seconds: float
    peak_memory: int | None


def load_fresh(path: Path, level: str, threads: int, feeds: Mapping[str, npt.NDArray[Any]]) -> Fresh | None:
    """Load a file and run it once in a fresh process; None where that process breaks off."""
    request = {
        "path": str(path.resolve()),
        "level": level,
        "threads": threads,
        "inputs": {name: [str(array.dtype), list(array.shape)] for name, array in feeds.items()},
    }
    answer = answer_of("unitrain.study.fresh", request, _SECONDS)
    if answer is None:
        return None
    found = json.loads(answer)
    return Fresh(found["load_seconds"], found["peak_memory"])


def main() -> None:
    """Answer one request from standard input."""
    from unitrain.backends.onnx.deployed import deploy

    request = json.load(sys.stdin)
    inputs = {name: np.zeros(shape, dtype) for name, (dtype, shape) in request["inputs"].items()}
    before = reset_peak_memory()
    start = time.perf_counter()
    deployed = deploy(Path(request["path"]), threads=request["threads"], level=request["level"])
    seconds = time.perf_counter() - start
    deployed.run(inputs)
    peak = peak_memory()
    grown = None if before is None or peak is None else max(peak - before, 0)
    print(json.dumps({"load_seconds": seconds, "peak_memory": grown}))
