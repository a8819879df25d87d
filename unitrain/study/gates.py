"""Integrity gates: a variant that fails one is a row with its reason, never a silent success."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.onnx.anatomy import anatomy, read_model
from unitrain.backends.onnx.deployed import Deployed, Level, coverage, deploy
from unitrain.spec.errors import InputError

Array = npt.NDArray[Any]

OK = "ok"


@dataclass(frozen=True)
class Expected:
    """What a variant promises: integers executed, other outputs than the float model's, a file that is not larger."""

    integers: bool = False
    differs: bool = False
    not_larger: bool = False


@dataclass
class Passage:
    """How a variant went through the gates: each with ``ok`` or what was found, and the session if it loads."""

    found: dict[str, str] = field(default_factory=dict)
    coverage: str = ""
    deployed: Deployed | None = None

    @property
    def failure(self) -> str:
        """Say which gates failed and why; nothing where all held."""
        return "; ".join(f"{gate}: {text}" for gate, text in self.found.items() if text != OK)


def pass_gates(
    path: Path,
    level: Level,
    expected: Expected,
    feeds: Mapping[str, Array],
    reference: Mapping[str, Array],
    float_bytes: int,
    threads: int,
) -> Passage:
    """Send a file through the gates, as far as it comes.

    Parameters
    ----------
    feeds, reference
        One batch, and what the float model gives on it.
    float_bytes
        Size of the float model's file.
    """
    passage = Passage()
    try:
        deployed = deploy(path, threads=threads, level=level)
    except InputError as error:
        passage.found["loads"] = error.problems[0].message
        return passage
    passage.found["loads"] = OK
    try:
        found = deployed.run(feeds)
    except Exception as error:  # onnxruntime's own kinds of error have no common class
        passage.found["runs"] = (str(error).strip() or type(error).__name__).splitlines()[0]
        return passage
    passage.found["runs"] = OK
    passage.deployed = deployed
    passage.found["finite"] = _finite(found)
    if expected.integers:
        done = coverage(path)
        passage.coverage = str(done)
        passage.found["int8 coverage"] = OK if done.integer else _why_no_integers(path, done.floating)
    if expected.differs:
        same = all(np.array_equal(found[name], reference[name]) for name in reference)
        passage.found["differs"] = "its outputs are those of the float model, bit for bit" if same else OK
    if expected.not_larger:
        size = path.stat().st_size
        passage.found["not larger"] = (
            f"{size:,} bytes, and the float model has {float_bytes:,}" if size > float_bytes else OK
        )
    return passage


def _finite(outputs: Mapping[str, Array]) -> str:
    bad = {
        name: int((~np.isfinite(array)).sum())
        for name, array in outputs.items()
        if array.dtype.kind == "f" and not np.isfinite(array).all()
    }
    return OK if not bad else ", ".join(f"{count:,} numbers of '{name}' are not finite" for name, count in bad.items())


def _why_no_integers(path: Path, floating: Mapping[str, int]) -> str:
    """Say what the products are that stayed in float, and why where that is known."""
    found = anatomy(read_model(path))
    listed = ", ".join(f"{count} {name}" for name, count in floating.items()) or "no products at all"
    reason = f"onnxruntime executes nothing in integers: {listed}"
    recurrent = sorted({"GRU", "RNN"} & floating.keys())
    if recurrent:
        reason += f"; it has no int8 form of {' and '.join(recurrent)}"
    elif "LSTM" in floating:
        reason += "; it has an int8 form of LSTM in dynamic quantisation alone"
    if found.nested_weights:
        reason += (
            f"; {found.nested_weights:,} weights stand inside If or Loop bodies, into which its static quantiser does "
            "not look"
        )
    return reason
