"""When the loss is not finite: which layer was the first, and at which step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Batchable, Program


def first_non_finite(program: Program, data: Batchable, rows: npt.NDArray[np.int32], step: int) -> str:
    """Name the first layer that is not finite in the batch ``rows``, which was not applied.

    The program's weights are still those that gave the bad loss. If weights themselves are not finite, the
    update before this step made them so; the layer nearest the output is named, because gradients flow from
    there.

    Parameters
    ----------
    program
        The program that stopped.
    data
        The training data.
    rows
        Samples of the batch, int32 ``[batch]``.
    step
        Number of the step, from 0, since the start of training.
    """
    weights = program.weights()
    for node in reversed(program.graph.nodes):
        for local, name in node.parameters.items():
            if not np.isfinite(weights[name]).all():
                return (
                    f"the loss is not finite at step {step + 1}: the {local} of layer '{node.name}' was made "
                    f"{_kind(weights[name])} by the update before"
                )
    inputs = {name: array[rows] for name, array in data.inputs.items()}
    for name, array in inputs.items():
        if not np.isfinite(array).all():
            bad = rows[~np.isfinite(array.reshape(len(rows), -1)).all(axis=1)][0]
            found = f"input '{name}' holds {_kind(array)}, sample {bad}"
            return f"the loss is not finite at step {step + 1}: {found}"
    outputs = program.activations(inputs, training=True, step=step)
    for node in program.graph.nodes:
        if not np.isfinite(outputs[node.name]).all():
            return (
                f"the loss is not finite at step {step + 1}: the output of layer '{node.name}' "
                f"({node.layer.type}) is the first with {_kind(outputs[node.name])}"
            )
    for name, array in data.targets.items():
        if not np.isfinite(array[rows]).all():
            return f"the loss is not finite at step {step + 1}: the target '{name}' holds {_kind(array[rows])}"
    return f"the loss is not finite at step {step + 1}, and every layer's output is: the loss itself overflows"


def _kind(array: npt.NDArray[np.floating]) -> str:
    return "NaN" if np.isnan(array).any() else "infinity"
