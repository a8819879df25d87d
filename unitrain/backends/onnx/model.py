"""Writes a graph with its weights as an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, checker, helper, shape_inference

from unitrain.backends.contract import Arrays, Precision

# Imported for what they register: each fills its row of the table.
from unitrain.backends.onnx import (  # noqa: F401
    activation,
    arithmetic,
    attention,
    axis,
    conv,
    dense,
    dropout,
    embedding,
    gate,
    mask,
    merge,
    norm,
    pool,
    position,
    projection,
    quantize,
    recurrent,
    resize,
    shape,
    similarity,
    tabular,
    vision,
)
from unitrain.backends.onnx.emitter import Emitter, LayerEmitter, Layout, Value
from unitrain.backends.onnx.registry import IMPLEMENTATIONS
from unitrain.backends.precision import check_precision
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.layers.base import Shape
from unitrain.weights.initialize import check_weights
from unitrain.weights.quantize import quantized_kernel

OLDEST_OPSET = 17
# What onnxruntime 1.32 runs, and the layers are tested with.
NEWEST_OPSET = 28
DEFAULT_OPSET = 21
BATCH = "batch"
# A protobuf message, as which a model is stored, ends at 2 GiB; names and shapes take some of it.
_MOST_BYTES = 2_000_000_000
_ELEMENTS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}
PRECISIONS: tuple[Precision, ...] = ("float32", "float64", "float16")


def implemented_types() -> frozenset[str]:
    """Return the layer types that have an implementation."""
    return frozenset(name for name, layer in LAYER_TYPES.items() if layer in IMPLEMENTATIONS)


def opsets() -> range:
    """Return the opsets that can be written: those that the installed version of onnx knows too."""
    return range(OLDEST_OPSET, min(NEWEST_OPSET, onnx.defs.onnx_opset_version()) + 1)


@dataclass(frozen=True)
class Emitted:
    """A model, and where in it the results of the graph's nodes are: tensor and layout, by node name."""

    model: ModelProto
    places: dict[str, tuple[str, Layout]]


def emit(
    graph: Graph,
    weights: Arrays,
    *,
    opset: int = DEFAULT_OPSET,
    precision: Precision = "float32",
    name: str | None = None,
) -> ModelProto:
    """Write a graph for inference as an ONNX model.

    Parameters
    ----------
    graph
        The resolved model.
    weights
        All parameters, canonical names and layouts.
    opset
        Version of ONNX's operators, from 17 on: the newer, the fewer of them are needed.
    precision
        Type of all floats. Integer inputs are int32.
    name
        What the ONNX graph is called; by default as the model.

    Returns
    -------
    model
        Checked, with the shapes of all tensors. Inputs and outputs have the spec's names and layout,
        ``[batch, height, width, channel]``, the batch being the dimension ``batch`` of any size; an operator and its
        output are named like the layer, initializers like the parameters. Weights have the layouts of ONNX.

    Raises
    ------
    InputError
        The weights do not fit the graph, the opset is not one of those that can be written, or the model is too large
        for one file.
    """
    return emit_with_places(graph, weights, opset=opset, precision=precision, name=name).model


def emit_with_places(
    graph: Graph,
    weights: Arrays,
    *,
    opset: int = DEFAULT_OPSET,
    precision: Precision = "float32",
    name: str | None = None,
) -> Emitted:
    """Write a model as `emit` does, and say where each node's result is."""
    _check(graph, weights, opset, precision)
    reserved = {*graph.inputs, *graph.outputs, *graph.parameters, *(node.name for node in graph.nodes)}
    typed = {
        key: quantized_kernel(np.asarray(weights[key], dtype=precision), parameter)
        for key, parameter in graph.parameters.items()
    }
    emitter = Emitter(typed, opset, precision, reserved)
    values = {key: Value(given.shape, {"channels_last": key}) for key, given in graph.inputs.items()}
    for node in graph.nodes:
        start = len(emitter.operators)
        arguments = (values[source] for source in node.inputs)
        value = IMPLEMENTATIONS[type(node.layer)](node.layer, LayerEmitter(emitter, node), *arguments)
        result = value.forms[value.layout]
        for operator in emitter.operators[start:]:
            if operator.output == result:  # none where the layer hands its input on
                operator.name = node.name
                emitter.rename({result: node.name}, start)
                value.forms[value.layout] = node.name
        values[node.name] = value
    names = _name_outputs(graph, emitter, values)
    places: dict[str, tuple[str, Layout]] = {}
    for node in graph.nodes:
        value = values[node.name]
        tensor = value.forms[value.layout]
        places[node.name] = (names.get(tensor, tensor), value.layout)
    return Emitted(_assemble(graph, emitter, places, name or graph.name), places)


def _check(graph: Graph, weights: Arrays, opset: int, precision: Precision) -> None:
    check_precision("onnx", PRECISIONS, precision)
    problems = check_weights(graph, weights)
    if problems:
        raise InputError(f"the weights do not fit the model '{graph.name}': {'; '.join(problems[:5])}")
    if opset not in opsets():
        raise InputError(
            "this opset cannot be written",
            field=("opset",),
            found=str(opset),
            allowed=f"{opsets()[0]} .. {opsets()[-1]}",
        )
    size = sum(parameter.size for parameter in graph.parameters.values()) * np.dtype(precision).itemsize
    if size > _MOST_BYTES:
        raise InputError(
            f"the model '{graph.name}' is too large for an ONNX file",
            found=f"{size:,} bytes of weights",
            allowed=f"{_MOST_BYTES:,}",
        )


def _name_outputs(graph: Graph, emitter: Emitter, values: dict[str, Value]) -> dict[str, str]:
    """Give the graph's outputs their names, and return which tensors were renamed.

    An output may be called like a node that is not it: ``logits`` with an activation is the node
    ``logits_activation``. Then that node's tensor gives its name up. A tensor that is an input, or an output already,
    is copied.
    """
    names: dict[str, str] = {}
    tensors = {output: emitter.brought(values[node], "channels_last") for output, node in graph.outputs.items()}
    # Those that have their name come first: the others are copies of them.
    for output, tensor in sorted(tensors.items(), key=lambda item: item[0] != item[1]):
        copied = tensor in graph.inputs or tensor in names
        names[emitter.add("Identity", f"{output}.copy", [tensor]) if copied else tensor] = output
    for output in {operator.output for operator in emitter.operators} & graph.outputs.keys() - names.keys():
        inner = "channels_first" if graph.outputs[output] == output else "before_activation"
        names[output] = emitter.unique(f"{output}.{inner}")
    emitter.rename(names)
    return names


def _assemble(graph: Graph, emitter: Emitter, places: Mapping[str, tuple[str, Layout]], name: str) -> ModelProto:
    """Put the model together, infer the shapes of all tensors, and check it."""
    elements = {"float": _ELEMENTS[emitter.dtype.name], "integer": TensorProto.INT32}
    nodes = {node.name: node for node in graph.nodes}
    inputs = [_described(key, elements[given.dtype], given.shape) for key, given in graph.inputs.items()]
    outputs = [
        _described(key, elements[nodes[node].dtype], nodes[node].output_shape) for key, node in graph.outputs.items()
    ]
    # What is known of the nodes' results is given: the inference loses the batch's name at some operators.
    known = {info.name for info in (*inputs, *outputs)}
    inside = {}
    for node in graph.nodes:
        tensor, layout = places[node.name]
        if tensor not in known:
            shape = node.output_shape
            first = layout == "channels_first"
            inside[tensor] = _described(tensor, elements[node.dtype], (shape[-1], *shape[:-1]) if first else shape)
    operators, initializers = emitter.protos()
    versions = [helper.make_opsetid("", emitter.opset)]
    model = helper.make_model(
        helper.make_graph(operators, name, inputs, outputs, initializers, value_info=list(inside.values())),
        opset_imports=versions,
        ir_version=helper.find_min_ir_version_for(versions),
        producer_name="unitrain",
    )
    model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    checker.check_model(model, full_check=True)
    return model


def _described(name: str, element: int, sample: Shape) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, element, [BATCH, *sample])
