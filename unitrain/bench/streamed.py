"""Training on a file that may be larger than memory, as a recipe with ``data.stream: always`` does it.

Rows come in random order from the whole file. The largest file is more than ten times as large as what a process
holds of it, with all that training needs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.backends import load_backend
from unitrain.backends.contract import Backend, Batchable, Plan
from unitrain.backends.toolkit import Call
from unitrain.bench.models import TimedModel
from unitrain.bench.results import Work
from unitrain.bench.runner import Entry, Experiment, Right
from unitrain.bench.sides import Side
from unitrain.bench.training import TOLERANCE
from unitrain.data.sources.array_file import lazy_values, open_npy
from unitrain.train.feed import Streamed
from unitrain.train.plan import Batches

BATCH = 128
# Of batches that wait, and of a block on the device.
AHEAD_BYTES, BLOCK_BYTES = 8 * 2**20, 4 * 2**20
MEBIBYTES = (8, 32, 128, 512)
# Steps of a timed call, in blocks.
STEPS, BLOCK = 64, 8
_RATE = 1e-3
_CLASSES = 10


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="unitrain-bench-")


@cache
def data_file(mebibytes: int, features: int, seed: int) -> Path:
    """Write rows of so many uniform float32 numbers, piece by piece; the file vanishes with the process."""
    rows, path = mebibytes * 2**20 // (4 * features), Path(_folder().name, f"{mebibytes}-{features}-{seed}.npy")
    generator = np.random.default_rng([seed, mebibytes])
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, features)}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, rows, 1024):
            file.write(generator.random((min(1024, rows - first), features), dtype=np.float32).data)
    return path


def read_file(path: Path, model: TimedModel) -> Batchable:
    """Leave the inputs in the file; the classes are drawn."""
    (given,), (output,) = model.graph.inputs, model.graph.outputs
    inputs: Any = lazy_values(open_npy(path), path, given)
    classes = np.random.default_rng(model.seed).integers(0, _CLASSES, len(inputs)).astype(np.int32)
    return Batchable({given: inputs}, {output: classes})


def calls_of(path: Path) -> int:
    """Return how many calls go through as many rows as a file has; two at least."""
    return max(2, len(open_npy(path)) // (BATCH * STEPS))


def experiment(model: TimedModel, sides: Sequence[Side], device: str, file: Callable[[], Path]) -> Experiment:
    """Return the experiment of a model with one flat input: `STEPS` steps on the rows of a file.

    ``file`` is asked when the experiment is done, and so may write it then.
    """

    def build(side: Side) -> Call:
        return _calls(side.backend, model, side.device, "float32", read_file(file(), model))

    def expected() -> Right:
        call = _calls(load_backend("numpy"), model, "cpu", "float64", read_file(file(), model))
        return Right(call.read(call.run()), TOLERANCE)

    one = model.gradient_work(BATCH)
    update = 7.0 * 4 * model.graph.parameter_count(trainable=True)
    work = Work(one.flops * STEPS, (one.bytes + update) * STEPS, one.operations * STEPS, BATCH * STEPS)
    return Experiment(
        "training",
        f"{model.name} from a file",
        f"Adam, batch {BATCH}, {STEPS} steps, rows in random order, {model.about}",
        work,
        [Entry(side.name, side, partial(build, side)) for side in sides],
        expected,
        device,
    )


def _calls(backend: Backend, model: TimedModel, device: str, precision: str, data: Batchable) -> Call:
    """Train on, `STEPS` steps a call, each call in an order of its own; a call's losses are read."""
    program = backend.compile(model.graph, model.weights, model.settings(device, precision), model.rule())
    update, batches = model.update(), Batches(len(data), BATCH, seed=model.seed, drop_last=True)
    rates = np.full(BLOCK, _RATE)
    done = 0

    def run() -> list[np.ndarray[Any, Any]]:
        nonlocal done
        order = batches.order(done)
        rows = np.resize(order[: len(order) // BATCH * BATCH], (STEPS, BATCH)).astype(np.int32)
        start = done * STEPS
        coming: Iterator[Any] = ((start + step, rows[step]) for step in range(STEPS))
        losses = []
        with Streamed(program, data, coming, ahead_bytes=AHEAD_BYTES, block_bytes=BLOCK_BYTES) as feed:
            for first in range(0, STEPS, BLOCK):
                coefficients = update.coefficients(rates, start + first)
                plan = Plan(
                    rows[first : first + BLOCK], coefficients, np.ones(BLOCK), np.ones(BLOCK, np.bool_), start + first
                )
                losses.append(feed.run(plan).losses)
        done += 1
        return losses

    # Those of the first block: after it rounding has grown beyond what tells right from wrong.
    return Call(run, lambda losses: {"losses": losses[0]})
