"""An ONNX file as it is deployed: its session, what it reads and gives, and the graph that onnxruntime executes."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import GraphProto, NodeProto

from unitrain.spec.errors import InputError

Array = npt.NDArray[Any]
Level = Literal["all", "extended", "basic", "none"]

LEVELS: tuple[Level, ...] = ("all", "extended", "basic", "none")
_LEVELS = {"all": "ORT_ENABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "basic": "ORT_ENABLE_BASIC"}
_KINDS = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
# Errors only: its warnings tell of what it does with the graph.
_ERRORS = 3

# Operators that do the work of a model, as onnxruntime names them once it has rewritten the graph.
FLOAT_WORK = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "FusedConv",
        "NhwcFusedConv",
        "Gemm",
        "FusedGemm",
        "MatMul",
        "FusedMatMul",
        "TransposeMatMul",
        "LSTM",
        "GRU",
        "RNN",
        "Attention",
        "MultiHeadAttention",
        "Einsum",
    }
)
INTEGER_WORK = frozenset(
    {
        "QLinearConv",
        "NhwcQLinearConv",
        "QLinearConvTranspose",
        "ConvInteger",
        "QGemm",
        "QLinearMatMul",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "QAttention",
        "MatMulNBits",
    }
)


@dataclass(frozen=True)
class Port:
    """An input or output of a file: its name, kind of numbers, and shape, None where any size goes."""

    name: str
    kind: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Deployed:
    """A file that is loaded and ready to run."""

    path: Path
    session: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch. Raises whatever onnxruntime raises on it."""
        names = [port.name for port in self.outputs]
        return dict(zip(names, self.session.run(names, dict(inputs)), strict=True))

    def predict(self, inputs: Mapping[str, Array], batch: int) -> dict[str, Array]:
        """Run many samples, ``batch`` at a time."""
        count = len(next(iter(inputs.values())))
        parts = [
            self.run({name: array[first : first + batch] for name, array in inputs.items()})
            for first in range(0, count, batch)
        ]
        return {port.name: np.concatenate([part[port.name] for part in parts]) for port in self.outputs}


def deploy(path: Path, *, threads: int = 1, level: Level = "all") -> Deployed:
    """Load a file: no spinning threads, which would take the processor from others.

    Raises
    ------
    InputError
        onnxruntime cannot load it.
    """
    session = open_session(path, session_options(threads, level))
    return Deployed(path, session, _ports(session.get_inputs(), path), _ports(session.get_outputs(), path))


def executed(path: Path) -> Counter[str]:
    """Count the operators that onnxruntime executes: of its own optimised model, branches and loops included.

    Raises
    ------
    InputError
        onnxruntime cannot load it.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = session_options(1, "all")
        options.optimized_model_filepath = str(optimised)
        open_session(path, options)
        model = onnx.load(str(optimised), load_external_data=False)
    counted = Counter(node.op_type for node in all_nodes(model.graph))
    for function in model.functions:
        counted.update(node.op_type for node in function.node)
    return counted


@dataclass(frozen=True)
class Coverage:
    """How much of a model's work onnxruntime does in integers: operators of products, counted.

    Parameters
    ----------
    integer, floating
        Operators to how many there are.
    """

    integer: Mapping[str, int]
    floating: Mapping[str, int]

    @property
    def share(self) -> float:
        """Share of the operators of products that compute in integers."""
        whole = sum(self.integer.values()) + sum(self.floating.values())
        return sum(self.integer.values()) / whole if whole else 0.0

    def __str__(self) -> str:
        integers = sum(self.integer.values())
        return f"{integers}/{integers + sum(self.floating.values())}"


def coverage(path: Path) -> Coverage:
    """Count integer and float products in the graph that is executed. Raises `InputError` as `executed` does."""
    counted = executed(path)
    return Coverage(
        {name: counted[name] for name in sorted(INTEGER_WORK & counted.keys())},
        {name: counted[name] for name in sorted(FLOAT_WORK & counted.keys())},
    )


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Go through the nodes of a graph and of the graphs inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from all_nodes(inner)


def session_options(threads: int, level: Level) -> Any:
    """Return the options of a session: its threads, which do not spin, and how far the graph is rewritten."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, _LEVELS.get(level, "ORT_DISABLE_ALL")
    )
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def open_session(model: Path | bytes, options: Any) -> Any:
    """Load a file or its content. Raises `InputError` when onnxruntime cannot."""
    given = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds of error have no common class
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"onnxruntime {onnxruntime.__version__} cannot load it: {reason}",
            file=None if isinstance(model, bytes) else str(model),
        ) from None


def _ports(found: Sequence[Any], path: Path) -> tuple[Port, ...]:
    ports = []
    for item in found:
        if item.type not in _KINDS:
            raise InputError(
                f"'{item.name}' is {item.type}, which is not studied", file=str(path), allowed=", ".join(_KINDS)
            )
        shape = tuple(size if isinstance(size, int) and size > 0 else None for size in item.shape)
        ports.append(Port(item.name, _KINDS[item.type], shape))
    return tuple(ports)
