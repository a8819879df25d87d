"""Exports that are run again: a file gets its name only when what it computes is right.

Each file is written under a temporary name, loaded again in its own framework, and held to the float64 reference by the
rule of `unitrain.verify.verdict`, with NumPy's float32 as the yardstick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unitrain.backends import load_backend
from unitrain.backends.contract import Arrays, Precision, Settings
from unitrain.folders import size_of
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.spec.layers import FakeQuantize
from unitrain.verify.export_files import SUFFIXES, Target, check_place, put, temporary
from unitrain.verify.runner import Cast
from unitrain.verify.verdict import Verdict, judge

Array = npt.NDArray[Any]
Run = Callable[[Arrays], Mapping[str, Array]]
Exporter = Literal["unitrain", "torch", "keras"]

# The batches that a file is run with. Programs with one fixed size, or that take a batch of one apart, fail here.
BATCHES = (1, 5)
# So many samples are compared; fewer where a sample is large.
SAMPLES, NUMBERS = 40, 20_000_000
# Keras' exporter goes by way of tf2onnx, which knows no newer one.
DEFAULT_OPSETS: dict[Exporter, int] = {"unitrain": 21, "torch": 21, "keras": 18}


@dataclass(frozen=True)
class Options:
    """How a file is written.

    Parameters
    ----------
    opset
        Version of ONNX's operators; by default 21, or the newest that the exporter knows.
    exporter
        Who writes ONNX: our emitter, or torch's or Keras' own exporter.
    precision
        Type of the weights and of all floats.
    specification
        The model's specification as YAML, for the metadata of safetensors.
    """

    opset: int | None = None
    exporter: Exporter = "unitrain"
    precision: Precision = "float32"
    specification: str | None = None


@dataclass(frozen=True)
class ExportResult:
    """What was written and how right it is.

    Parameters
    ----------
    path
        The file or folder; it is there only if all is right.
    size_bytes
        Its size, that of all its files together.
    verdicts
        By output and batch size: ``logits, batch of 5``.
    notes
        What a user should know of the file.
    """

    path: Path
    size_bytes: int
    verdicts: Mapping[str, Verdict]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every tensor is right."""
        return all(verdict.passed for verdict in self.verdicts.values())

    @property
    def worst(self) -> tuple[str, Verdict]:
        """The tensor that is furthest off, measured by what is allowed to it."""
        return max(self.verdicts.items(), key=lambda item: (not item[1].passed, excess(item[1])))


def excess(verdict: Verdict) -> float:
    """Return the larger of a verdict's ratios, by what is allowed: at most 1 in a tensor that is right."""
    return max(verdict.ratio / verdict.bound, verdict.max_ratio / (2 * verdict.bound))


@dataclass(frozen=True)
class Written:
    """A file that has been written, and how to run it."""

    load: Callable[[], Run]
    notes: tuple[str, ...] = field(default=())


# Of a model in floats that rounds to levels.
_ROUNDS = (
    "computes in floats, as in training, where session.disable_quant_qdq is 1; onnxruntime otherwise makes integers of "
    "it, which --int8 writes and compares"
)

Check = Callable[[Run], dict[str, Verdict]]
Writer = Callable[[Path], Written]


def export_checked(
    graph: Graph,
    weights: Arrays,
    target: Target,
    path: Path,
    inputs: Arrays,
    options: Options = Options(),
    *,
    replace: bool = False,
) -> ExportResult:
    """Write a graph with its weights for another program, run the file again, and keep it if it is right.

    Parameters
    ----------
    graph, weights
        The model, canonical weights.
    target
        What is written.
    path
        The file, or the folder of a SavedModel; its suffix must be that of `export_files.SUFFIXES`.
    inputs
        Samples to compare on, ``{input: [samples, ...]}``: the first of them, as `BATCHES` says.
    options
        How it is written.
    replace
        Whether a file of that name may be replaced.

    Returns
    -------
    result
        With verdicts that failed, nothing has been written.

    Raises
    ------
    InputError
        The place is taken or not there, a package is missing, or the exporter cannot write the model.
    """
    check_place(path, target, replace=replace)
    compared = Compared.of(graph, weights, inputs, options.precision)
    return write_checked(path, target, lambda place: write(graph, weights, target, place, options), compared.judge)


def write_checked(path: Path, target: Target, writer: Writer, check: Check) -> ExportResult:
    """Let ``writer`` write under a temporary name, ``check`` what it wrote, and give it its name if all is right."""
    with temporary(path, SUFFIXES[target]) as place:
        try:
            written = writer(place)
            verdicts = checked(written, check)
            result = ExportResult(path, size_of(place), verdicts, written.notes)
            if result.passed:
                put(place, path)
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror or error}", file=str(path)) from None
    return result


def checked(written: Written, check: Check) -> dict[str, Verdict]:
    """Load and judge what was written; a file that does not run is a wrong one."""
    try:
        return check(written.load())
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:  # each framework raises its own
        reason = f"cannot be run: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return {"the file": Verdict(False, np.inf, np.inf, 1.0, reason)}


def write(graph: Graph, weights: Arrays, target: Target, path: Path, options: Options) -> Written:
    """Write one file, unchecked. Raises `InputError` as `export_checked`."""
    precision = options.precision
    match target:
        case "onnx":
            return _write_onnx(graph, weights, path, options)
        case "torch":
            torch = _export_module("torch")
            torch.write_program(graph, weights, path, precision=precision)
            return Written(lambda: torch.load_program(path, graph))
        case "keras":
            keras = _export_module("keras")
            foreign = keras.write_keras(graph, weights, path, precision=precision)
            return Written(lambda: keras.load_keras(path, graph), _foreign_note(foreign))
        case "saved-model":
            keras = _export_module("keras")
            keras.write_saved_model(graph, weights, path, precision=precision)
            return Written(lambda: keras.load_saved_model(path, graph))
        case "safetensors":
            return _write_safetensors(graph, weights, path, options)


def _foreign_note(foreign: list[str]) -> tuple[str, ...]:
    if not foreign:
        return ()
    return (f"to load it, `import unitrain.backends.keras.model` first: it has {', '.join(foreign)}",)


def _write_onnx(graph: Graph, weights: Arrays, path: Path, options: Options) -> Written:
    onnx = _export_module("onnx")
    outputs = list(graph.outputs)
    opset = options.opset or DEFAULT_OPSETS[options.exporter]
    if options.exporter == "unitrain":
        onnx.write_onnx(graph, weights, path, opset=opset, precision=options.precision)
    else:
        framework = _export_module(options.exporter)
        framework.write_onnx(graph, weights, path, opset=opset, precision=options.precision)
        # Keras sorts what it gives by name.
        order = sorted(outputs) if options.exporter == "keras" else outputs
        onnx.put_in_order(path, graph, order, opset)
    rounds = any(isinstance(node.layer, FakeQuantize) for node in graph.nodes)
    return Written(lambda: onnx.load_onnx(path, outputs), (_ROUNDS,) if rounds else ())


def _write_safetensors(graph: Graph, weights: Arrays, path: Path, options: Options) -> Written:
    from unitrain.weights.store import load_weights, save_tensors

    metadata = {"format": "unitrain canonical weights", "model": graph.name}
    if options.specification is not None:
        metadata["specification"] = options.specification
    typed = {name: np.asarray(weights[name], dtype=options.precision) for name in graph.parameters}
    save_tensors(path, typed, metadata)

    def load() -> Run:
        numpy = load_backend("numpy")
        program = numpy.compile(graph, load_weights(path, graph), Settings(precision=options.precision))
        return program.predict

    return Written(load)


def _export_module(backend: str) -> Any:
    """Import what writes a framework's files. Raises `InputError` when the framework is not installed."""
    load_backend(backend)
    return import_module(f"unitrain.backends.{backend}.export")


@dataclass(frozen=True)
class Compared:
    """Samples, and what is expected of them.

    Parameters
    ----------
    inputs
        As the written model takes them.
    reference, yardsticks
        NumPy's predictions in float64, and those that tell how much rounding loses: outputs by name.
    """

    inputs: Arrays
    reference: Mapping[str, Array]
    yardsticks: tuple[Mapping[str, Array], ...]

    @classmethod
    def of(cls, graph: Graph, weights: Arrays, inputs: Arrays, precision: Precision, seed: int = 0) -> Compared:
        """Predict the first samples of ``inputs``, as many as memory bears."""
        count = sample_count(graph, len(next(iter(inputs.values()))))
        kinds = {"float": precision, "integer": "int32"}
        taken = {
            name: np.ascontiguousarray(inputs[name][:count], dtype=kinds[given.dtype]).reshape(count, *given.shape)
            for name, given in graph.inputs.items()
        }
        cast = Cast.of({}, precision, seed)
        predicted = []
        for runner in (cast.reference, *cast.yardsticks):
            program = runner.program("model", graph, weights)
            predicted.append(program.predict(taken, max(BATCHES)))
        return cls(taken, predicted[0], tuple(predicted[1:]))

    def judge(self, run: Run) -> dict[str, Verdict]:
        """Run a file with each size of batch and judge every output."""
        verdicts: dict[str, Verdict] = {}
        for size in BATCHES:
            found, count = in_batches(run, self.inputs, size)
            for name, right in self.reference.items():
                others = (other[name][:count] for other in self.yardsticks)
                verdicts[f"{name}, batch of {size}"] = judge(found[name], right[:count], *others)
        return verdicts


def sample_count(graph: Graph, available: int) -> int:
    """Return how many samples are compared."""
    numbers = sum(int(np.prod(node.output_shape)) for node in graph.nodes) or 1
    return min(available, max(max(BATCHES), min(SAMPLES, NUMBERS // numbers)))


def in_batches(run: Run, inputs: Arrays, size: int) -> tuple[dict[str, Array], int]:
    """Run all samples in batches of ``size``, for batches of one only the first few; return outputs and count."""
    available = len(next(iter(inputs.values())))
    count = min(available, max(BATCHES)) if size == 1 else available
    parts = [
        run({name: array[start : min(start + size, count)] for name, array in inputs.items()})
        for start in range(0, count, size)
    ]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}, count
