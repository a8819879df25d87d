"""Peak memory of training in a process of its own, where nothing is left over from what was timed before.

The process has its framework imported, and has trained a tiny model, before it begins to count.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from unitrain.bench.models import TimedModel, layer_model, reread
from unitrain.bench.sides import Side
from unitrain.fresh_process import answer_of

# Of a process that imports TensorFlow on a busy machine, and trains two blocks.
_SECONDS = 300.0


def peak_bytes(
    model: TimedModel, side: Side, batch: int, steps: int, threads: int, stream: Path | None = None
) -> int | None:
    """Train two blocks in a fresh process; return by how much it grew: data, weights, activations, optimizer.

    With ``stream`` as many steps as the file has batches are taken from there instead. None where the system does not
    tell, the process breaks off, or the model was made without a file.
    """
    if model.file is None:
        return None
    request = {
        "name": model.name,
        "file": str(model.file),
        "arguments": dict(model.arguments),
        "seed": model.seed,
        "backend": side.name,
        "device": side.device,
        "batch": batch,
        "steps": steps,
        "threads": threads,
        "stream": None if stream is None else str(stream),
    }
    answer = answer_of("unitrain.bench.fresh", request, _SECONDS)
    return int(answer) if answer is not None and answer.isdecimal() else None


def main() -> None:
    """Answer one request from standard input."""
    request = json.load(sys.stdin)
    found = _measure(request)
    print("" if found is None else found)


def _measure(request: dict[str, Any]) -> int | None:
    from unitrain.backends import load_backend
    from unitrain.backends.toolkit import load_toolkit
    from unitrain.bench import streamed
    from unitrain.bench.training import experiment
    from unitrain.machine import peak_memory, reset_peak_memory

    side = Side(load_backend(request["backend"]), load_toolkit(request["backend"]), request["device"])
    side.toolkit.prepare(request["threads"])

    def train(model: TimedModel, batch: int, steps: int, path: Path | None = None) -> None:
        if path is None:
            (entry,) = experiment(model, [side], request["device"], steps, batch).entries
        else:
            (entry,) = streamed.experiment(model, [side], request["device"], lambda: path).entries
        call = entry.build()
        assert call is not None
        for _ in range(2 if path is None else streamed.calls_of(path)):
            call.run()
            side.wait()

    train(layer_model("warm", {"type": "dense", "units": 2}, [4], 0), 2, 2)
    model = reread(request["name"], Path(request["file"]), request["arguments"], request["seed"])
    before = reset_peak_memory()
    train(model, request["batch"], request["steps"], Path(request["stream"]) if request["stream"] else None)
    peak = peak_memory()
    return None if before is None or peak is None else max(peak - before, 0)
