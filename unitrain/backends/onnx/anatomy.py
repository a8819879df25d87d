"""What an ONNX file is made of: size, weights, multiply-accumulates, and what stands in a quantiser's way."""

from __future__ import annotations

import gzip
import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from unitrain.backends.onnx.deployed import Array, all_nodes, open_session, session_options
from unitrain.spec.errors import InputError

Model: TypeAlias = ModelProto
"""A model in memory, for floors that import no framework."""

# What a quantised file holds, whoever wrote it.
_QUANTISED = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
        "MatMulNBits",
        "QGemm",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
    }
)
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})
# Recurrent operators and their gates.
_RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
_STATIC = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# A tensor with fewer numbers is a setting rather than weights.
_WEIGHTS = 16


@dataclass(frozen=True)
class Anatomy:
    """What a file holds.

    Parameters
    ----------
    opset
        Version of ONNX's own operators.
    operators
        Operator to how many there are, branches and loops included.
    quantised
        How many of them are a quantised model's.
    constant_weights
        Numbers in ``Constant`` nodes, where quantisers do not look.
    nested_weights
        Numbers inside the branches of ``If`` and the bodies of loops, where they do not look either.
    """

    opset: int
    operators: Mapping[str, int]
    quantised: int
    constant_weights: int
    nested_weights: int

    @property
    def products(self) -> dict[str, int]:
        """The operators that do the work, and how many there are of each."""
        return {name: count for name, count in self.operators.items() if name in _PRODUCTS}


def read_model(path: Path) -> ModelProto:
    """Read a file with the weights that stand beside it. Raises `InputError` when it is no ONNX model."""
    try:
        model = onnx.load(str(path))
    except FileNotFoundError as error:
        missing = error.filename or str(path)
        raise InputError("no such file", file=str(missing)) from None
    except Exception as error:  # protobuf's own kinds of error
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"this is no ONNX model: {reason}", file=str(path)) from None
    if not model.graph.node and not model.graph.output:
        raise InputError("this is no ONNX model: it computes nothing", file=str(path))
    return model


def write_model(model: ModelProto, path: Path) -> None:
    """Write a model into one file."""
    onnx.save_model(model, str(path))


def anatomy(model: ModelProto) -> Anatomy:
    """Look through a model."""
    counted = Counter(node.op_type for node in all_nodes(model.graph))
    top = sum(_constant_size(node) for node in model.graph.node)
    return Anatomy(
        opset(model),
        dict(sorted(counted.items())),
        sum(counted[name] for name in _QUANTISED),
        top,
        sum(_size_of(inner) for node in model.graph.node for inner in bodies(node)),
    )


def opset(model: ModelProto) -> int:
    """Return the version of ONNX's own operators."""
    written: list[int] = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return int(written[0]) if written else 0


def bodies(node: NodeProto) -> list[GraphProto]:
    """Return the branches of an ``If``, the body of a loop."""
    return [graph for item in node.attribute for graph in (*item.graphs, *([item.g] if item.HasField("g") else []))]


def _size_of(graph: GraphProto) -> int:
    """Count the numbers in the weights of a graph and those inside it."""
    own: int = sum(math.prod(item.dims) for item in graph.initializer if math.prod(item.dims) >= _WEIGHTS)
    return own + sum(_constant_size(node) + sum(_size_of(inner) for inner in bodies(node)) for node in graph.node)


def _constant_size(node: NodeProto) -> int:
    if node.op_type != "Constant":
        return 0
    size: int = sum(math.prod(item.t.dims) for item in node.attribute if item.name == "value")
    return size if size >= _WEIGHTS else 0


def product_nodes(model: ModelProto) -> list[tuple[str, str]]:
    """Return name and operator of the products that can be quantised statically, in the order of computation."""
    return [(node.name, node.op_type) for node in model.graph.node if node.op_type in _STATIC]


@dataclass(frozen=True)
class Sizes:
    """How large a file is.

    Parameters
    ----------
    file, compressed
        Bytes as stored, and by gzip at level 6; weights that stand in files beside it are counted.
    weights
        Bytes of the initialisers and constants.
    numbers, non_zeros
        How many numbers those are, and how many of them are not 0.
    sha256
        Of the file.
    """

    file: int
    compressed: int
    weights: int
    numbers: int
    non_zeros: int
    sha256: str


def sizes(path: Path) -> Sizes:
    """Measure a file. Raises `InputError` when it is no ONNX model."""
    content = path.read_bytes()
    beside = [
        path.parent / entry.value
        for item in onnx.load(str(path), load_external_data=False).graph.initializer
        if uses_external_data(item)
        for entry in item.external_data
        if entry.key == "location"
    ]
    extra = [file.read_bytes() for file in dict.fromkeys(beside)]
    tensors = list(_tensors(read_model(path).graph))
    arrays = [numpy_helper.to_array(tensor) for tensor in tensors]
    return Sizes(
        len(content) + sum(map(len, extra)),
        sum(len(gzip.compress(part, 6)) for part in (content, *extra)),
        sum(array.nbytes for array in arrays),
        sum(array.size for array in arrays),
        sum(int(np.count_nonzero(array)) for array in arrays if array.dtype.kind not in "OSU"),
        hashlib.sha256(b"".join((content, *extra))).hexdigest(),
    )


def _tensors(graph: GraphProto) -> list[TensorProto]:
    found = list(graph.initializer)
    for node in all_nodes(graph):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                found.append(attribute.t)
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                found += inner.initializer
    return found


def macs(model: ModelProto, inputs: Mapping[str, Array]) -> int | None:
    """Count multiply-accumulates of convolutions, matrix products and recurrent layers on given inputs.

    The model runs once with the operands of its products as outputs, which gives their shapes.

    Returns
    -------
    int or None
        None where products stand inside branches or loops: how often those run is not known.
    """
    nodes = [node for node in model.graph.node if node.op_type in _PRODUCTS]
    if len(nodes) < sum(anatomy(model).products.values()):
        return None
    known = {item.name: tuple(item.dims) for item in model.graph.initializer}
    known |= {name: array.shape for name, array in inputs.items()}
    needed = (name for node in nodes for name in (*node.input[:2], *_result(node)))
    wanted = dict.fromkeys(name for name in needed if name not in known)
    opened = ModelProto()
    opened.CopyFrom(model)
    outputs = {item.name for item in model.graph.output}
    opened.graph.output.extend(ValueInfoProto(name=name) for name in wanted if name not in outputs)
    session = open_session(opened.SerializeToString(), session_options(1, "basic"))
    known |= {
        name: tuple(array.shape) for name, array in zip(wanted, session.run(list(wanted), dict(inputs)), strict=True)
    }
    return sum(_node_macs(node, known) for node in nodes)


def _result(node: NodeProto) -> list[str]:
    """Return the output whose size counts; of recurrent layers none does, and they may leave theirs out."""
    return [] if node.op_type in _RECURRENT else list(node.output[:1])


def _node_macs(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    left, right = (shapes[name] for name in node.input[:2])
    if node.op_type in _RECURRENT:
        # [length, batch, in], [directions, gates * width, in]: products with the input and with the state.
        directions, rows, _ = right
        gates = _RECURRENT[node.op_type]
        return left[0] * left[1] * directions * rows * (left[2] + rows // gates)
    if node.op_type == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    result = shapes[node.output[0]]
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(right[1:])
    if node.op_type == "Gemm":
        transposed = any(item.name == "transA" and item.i for item in node.attribute)
        return math.prod(result) * left[0 if transposed else 1]
    return math.prod(result) * left[-1]
