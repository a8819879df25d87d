"""A model that was trained for integers, written as such by onnxruntime with the ranges of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from unitrain.backends.contract import Arrays
from unitrain.backends.onnx.model import DEFAULT_OPSET, emit_with_places
from unitrain.backends.onnx.qdq import write_qdq
from unitrain.graph.graph import Graph
from unitrain.graph.passes.fold import fold_batch_norm
from unitrain.graph.passes.quantize import without_fake_quantize
from unitrain.spec.errors import InputError
from unitrain.spec.layers import FakeQuantize
from unitrain.weights.quantize import settled_grid

# Scale and zero point of unsigned levels of 8 bits.
Grid = tuple[np.float32, np.uint8]
# What onnxruntime computes in integers, and what only moves values and keeps their levels.
_COMPUTING = ("Conv", "Gemm", "MatMul", "Add", "Concat", "AveragePool", "GlobalAveragePool")
_MOVING = ("Transpose", "Reshape", "MaxPool", "Flatten", "Squeeze", "Unsqueeze")
_SYMMETRIC_ZERO = 128


def write_int8(graph: Graph, weights: Arrays, path: Path, *, opset: int = DEFAULT_OPSET) -> None:
    """Write the file of `emit_int8`."""
    onnx.save_model(emit_int8(graph, weights, opset=opset), str(path))


def emit_int8(graph: Graph, weights: Arrays, *, opset: int = DEFAULT_OPSET) -> ModelProto:
    """Write a model that has layers that round as one that computes in integers of 8 bits.

    Batch norms are folded, kernels become int8, biases int32, activations uint8 with scale and zero point of training,
    all as ``QuantizeLinear`` and ``DequantizeLinear`` around float operators, which onnxruntime joins. What was not
    rounded in training stays in floats.

    Raises
    ------
    InputError
        The model was not trained for integers, or not for those of 8 bits and one scale a tensor, or as `emit` does.
    """
    per_channel = _check(graph)
    folded = fold_batch_norm(graph, weights)
    plain, rounding = without_fake_quantize(folded.graph)
    kept = {name: folded.weights[name] for name in plain.parameters}
    emitted = emit_with_places(plain, kept, opset=opset)
    grids = {}
    for name, node in rounding.items():
        own = {local: folded.weights[canonical] for local, canonical in node.parameters.items()}
        grids[name if name in plain.inputs else emitted.places[name][0]] = _grid(node.layer, own)
    return quantised(emitted.model, grids, per_channel=per_channel)


def quantised(model: ModelProto, grids: Mapping[str, Grid], *, per_channel: bool) -> ModelProto:
    """Quantise a float model with onnxruntime's quantiser: the named tensors, and the operators that read them alone.

    Parameters
    ----------
    model
        With weights among the initializers; changed in place.
    grids
        Scale and zero point of each tensor that is rounded, by name.
    per_channel
        A scale for each output channel of a weight, or one for all.
    """
    # The quantiser works out scales from ranges; those given stand in their place, exactly.
    exact = {name: [{"scale": np.array(s), "zero_point": np.array(z)}] for name, (s, z) in grids.items()}
    ranges = {name: _range(grid) for name, grid in grids.items()}
    return write_qdq(
        model,
        TensorsData(CalibrationMethod.MinMax, ranges),
        per_channel=per_channel,
        operator_types=[*_COMPUTING, *_MOVING],
        only=_computed_in_integers(model, grids),
        tensors=list(grids),
        extra={"TensorQuantOverrides": exact},
    )


def _check(graph: Graph) -> bool:
    """See that onnxruntime can compute as the model was trained to; return whether kernels have scales by channel."""
    rounding = [node for node in graph.nodes if isinstance(node.layer, FakeQuantize)]
    quantizers = [parameter.quantizer for parameter in graph.parameters.values() if parameter.quantizer is not None]
    if not rounding or not quantizers:
        raise InputError(
            f"the model '{graph.name}' was not trained for integers: it has no layers that round",
            hint="train it with a section `quantization` in the recipe",
        )
    bits = {node.layer.bits for node in rounding if isinstance(node.layer, FakeQuantize)}
    bits |= {quantizer.bits for quantizer in quantizers}
    if bits != {8}:
        found = ", ".join(map(str, sorted(bits)))
        raise InputError("onnxruntime computes in integers of 8 bits", found=f"bits: {found}", allowed="8")
    if any(isinstance(node.layer, FakeQuantize) and node.layer.per_channel for node in rounding):
        raise InputError("onnxruntime has one scale for an activation", found="fake_quantize with per_channel")
    kinds = {quantizer.per_channel for quantizer in quantizers}
    if len(kinds) > 1:
        raise InputError("kernels have one scale in some layers, and one for each channel in others")
    return kinds.pop()


def _grid(layer: Any, parameters: Arrays) -> Grid:
    scale, zero = settled_grid(layer, parameters, np.float32)
    return np.float32(scale[0]), np.uint8(_SYMMETRIC_ZERO if layer.symmetric else zero[0])


def _range(grid: Grid) -> TensorData:
    scale, zero = grid
    low, high = ((level - float(zero)) * float(scale) for level in (0, 255))
    return TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))


def _computed_in_integers(model: ModelProto, grids: Mapping[str, Grid]) -> list[str]:
    """Return the names of the operators all of whose activations are rounded."""
    weights = {tensor.name for tensor in model.graph.initializer}
    known, chosen = set(grids), []
    for operator in model.graph.node:
        read = [name for name in operator.input if name and name not in weights]
        if not read or not known.issuperset(read):
            continue
        if operator.op_type in _MOVING:
            known.update(operator.output)
        elif operator.op_type not in _COMPUTING or (operator.op_type == "Add" and len(read) < 2):
            continue
        chosen.append(operator.name)
    return chosen
