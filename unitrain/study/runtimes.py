"""Other runtimes as rows: NumPy, torch and TensorFlow on the float model of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unitrain.backends import load_backend
from unitrain.backends.contract import Settings
from unitrain.backends.toolkit import load_toolkit
from unitrain.study.gates import OK
from unitrain.study.results import Row
from unitrain.study.subject import Array
from unitrain.timing import Contender
from unitrain.train.inference import TrainedRun

# Largest relative error against the float model in onnxruntime.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Runtime:
    """A framework, and one of the ways in which it runs a model."""

    name: str
    what: str
    backend: str
    mode: str


def ready(
    runtime: Runtime,
    trained: TrainedRun,
    threads: int,
    feeds: Mapping[str, Array],
    reference: Mapping[str, Array],
    row: Row,
) -> Contender | None:
    """Prepare one call on a batch; None, with the reason in the row, where the framework fails or differs.

    Raises
    ------
    InputError
        The framework is not installed.
    """
    load_backend(runtime.backend)
    toolkit = load_toolkit(runtime.backend)
    used = toolkit.prepare(threads)
    if used != threads:
        row.notes.append(f"{runtime.name} uses {used} threads: it had begun to compute in this process")
    weights = {name: np.asarray(array, np.float32) for name, array in trained.program.weights().items()}
    call = toolkit.inference(trained.loaded.graph, weights, Settings(), runtime.mode, dict(feeds))
    result = call.run()
    toolkit.wait("cpu")
    found = call.read(result)
    row.gates["runs"] = OK
    worst = max(
        float(np.abs(found[name] - exact).max() / max(float(np.abs(exact).max()), 1e-30))
        for name, exact in reference.items()
    )
    row.gates["agrees"] = (
        OK if worst <= TOLERANCE else f"its outputs differ from the float model's by {worst:.2g} of the largest"
    )
    if row.gates["agrees"] != OK:
        row.failure = f"agrees: {row.gates['agrees']}"
        return None
    return Contender(runtime.name, call.run, lambda: toolkit.wait("cpu"))
