"""The export of a model trained for integers: written, run by onnxruntime, and held to what it computed in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends import load_backend
from unitrain.backends.contract import Arrays, Settings
from unitrain.folders import size_of
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.verify.export_files import check_place, put, temporary

# Integers are rounded where floats are not, so numbers may differ by a level: most decisions must be the same, and
# numbers that decide nothing be near, by the root of the mean square, relative to their standard deviation.
AGREEMENT = 0.995
DEVIATION = 0.05
BATCH = 64


@dataclass(frozen=True)
class Nearness:
    """How near the file is to the model in training.

    Parameters
    ----------
    agreement
        Fraction of equal decisions, for each output that decides among classes.
    deviation
        Root of the mean squared difference by the standard deviation of what was expected, for every output.
    """

    agreement: dict[str, float]
    deviation: dict[str, float]


@dataclass(frozen=True)
class Int8Result:
    """What was written, and how near it is to the model in training.

    Parameters
    ----------
    path, size_bytes
        The file; it is there only if it passed.
    samples
        How many were compared.
    exact
        In exact integers.
    saturated
        As onnxruntime computes on this processor unless told otherwise, where that is not the same: without VNNI
        instructions sums of products saturate.
    """

    path: Path
    size_bytes: int
    samples: int
    exact: Nearness
    saturated: Nearness | None = None

    @property
    def passed(self) -> bool:
        """Whether decisions agree, and other numbers are near."""
        agreement = self.exact.agreement
        numbers = (value for name, value in self.exact.deviation.items() if name not in agreement)
        return all(value >= AGREEMENT for value in agreement.values()) and all(value <= DEVIATION for value in numbers)


def export_int8(
    graph: Graph,
    weights: Arrays,
    path: Path,
    inputs: Arrays,
    classes: frozenset[str] = frozenset(),
    *,
    opset: int | None = None,
    replace: bool = False,
) -> Int8Result:
    """Write a model that was trained for integers as one that computes in them; keep the file if it decides the same.

    Parameters
    ----------
    graph, weights
        With the layers that round.
    path
        The ``.onnx`` file.
    inputs
        Samples to compare on, ``{input: [samples, ...]}``.
    classes
        Outputs that are logits, of classes along the last axis or, where it is 1, of one class.

    Raises
    ------
    InputError
        The place is taken or not there, or the model was not trained for integers of 8 bits.
    """
    check_place(path, "onnx", replace=replace)
    load_backend("onnx")
    from unitrain.backends.onnx.export import load_onnx
    from unitrain.backends.onnx.integer import write_int8
    from unitrain.backends.onnx.model import DEFAULT_OPSET
    from unitrain.backends.onnx.program import UNSATURATED

    kinds = {name: np.float32 if given.dtype == "float" else np.int32 for name, given in graph.inputs.items()}
    typed = {name: np.ascontiguousarray(inputs[name], dtype=kind) for name, kind in kinds.items()}
    expected = load_backend("numpy").compile(graph, weights, Settings()).predict(typed)
    samples = len(next(iter(typed.values())))
    with temporary(path, ".onnx") as place:
        try:
            write_int8(graph, weights, place, opset=opset or DEFAULT_OPSET)
            exact, plain = (
                _compared(load_onnx(place, list(graph.outputs), entries=entries), typed, expected, classes)
                for entries in ([UNSATURATED], [])
            )
            result = Int8Result(path, size_of(place), samples, exact, None if plain == exact else plain)
            if result.passed:
                put(place, path)
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror or error}", file=str(path)) from None
    return result


def _compared(
    run: Callable[[Arrays], Mapping[str, npt.NDArray[Any]]], inputs: Arrays, expected: Arrays, classes: frozenset[str]
) -> Nearness:
    """Run all samples."""
    samples = len(next(iter(inputs.values())))
    parts = [
        run({name: array[start : start + BATCH] for name, array in inputs.items()})
        for start in range(0, samples, BATCH)
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in expected}
    return Nearness(
        {name: _agreement(found[name], expected[name]) for name in expected if name in classes},
        {name: _deviation(found[name], expected[name]) for name in expected},
    )


def _agreement(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    if expected.shape[-1] == 1 or expected.ndim == 1:
        return float(((found > 0) == (expected > 0)).mean())
    return float((found.argmax(-1) == expected.argmax(-1)).mean())


def _deviation(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    error = float(np.sqrt(np.mean(np.square(found.astype(np.float64) - expected))))
    spread = float(np.std(expected.astype(np.float64)))
    return error / spread if spread else (0.0 if error == 0 else float("inf"))
