"""A user's ONNX file, taken apart by its own graph. Inference only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from unitrain.backends.foreign import (
    Array,
    ForeignParameter,
    Operation,
    Ran,
    Role,
    Trace,
    blocks,
    float32,
    in_order_of_use,
    second_bias,
)
from unitrain.backends.onnx.program import _session
from unitrain.spec.errors import InputError

_VECTORS: dict[str, dict[int, tuple[Role, str]]] = {
    "BatchNormalization": {
        1: ("scale", "c"),
        2: ("bias", "c"),
        3: ("running_mean", "c"),
        4: ("running_variance", "c"),
    },
    "LayerNormalization": {1: ("scale", ""), 2: ("bias", "")},
    "GroupNormalization": {1: ("scale", "c"), 2: ("bias", "c")},
    "RMSNormalization": {1: ("scale", "")},
    "PRelu": {1: ("slope", "")},
    "Gather": {0: ("table", "vd")},
    "Add": {0: ("bias", ""), 1: ("bias", "")},
    "Mul": {0: ("scale", ""), 1: ("scale", "")},
}
# Gates of the recurrent operators in ONNX's order; the cell's is called c there.
_GATES = {"LSTM": "iofg", "GRU": "zrn", "RNN": "h"}


@dataclass
class _Recorded:
    """Names of the tensors by number, and the sections cut so far."""

    names: list[str]
    sessions: dict[tuple[tuple[int, ...], tuple[int, ...]], Any] = field(default_factory=dict)


class OnnxModel:
    """`backends.foreign.Foreign` of an ONNX model."""

    label = "onnx model"
    backend = "onnx"
    trains = False
    channels_first: bool | None = None

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        constants[node.output[0]] = numpy_helper.to_array(attribute.t)
        self._constants = constants
        # Scalars are settings, such as an epsilon: no layer has them for parameters.
        self._arrays = {
            name: float32(name, array) for name, array in constants.items() if array.dtype.kind == "f" and array.ndim
        }
        self.input_names = tuple(item.name for item in model.graph.input if item.name not in constants)

    def arrays(self) -> dict[str, Array]:
        """Copy out initializers and constants of kind float."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def record(self, inputs: Mapping[str, Array] | Sequence[Array], *, training: bool) -> Trace:
        """Run the model once with all its tensors as outputs, which gives their shapes."""
        if training:
            raise ValueError("an ONNX model runs inference only")
        arrays = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
        order = list(inputs) if isinstance(inputs, Mapping) else list(self.input_names)
        feeds = dict(zip(order, arrays, strict=True))
        names = [*order, *(output for node in self.model.graph.node for output in node.output if output)]
        opened = ModelProto()
        opened.CopyFrom(self.model)
        known = {output.name for output in self.model.graph.output} | set(order)
        opened.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in known)
        session = _session(opened)
        kinds = {item.name: item.type for item in session.get_inputs()}
        results = session.run(None, {name: _cast(array, kinds[name]) for name, array in feeds.items()})
        shapes = {name: tuple(array.shape) for name, array in feeds.items()}
        for item, result in zip(session.get_outputs(), results, strict=True):
            shapes[item.name] = tuple(np.shape(result))
        numbers = {name: number for number, name in enumerate(names)}
        operations = [
            Operation(
                node.op_type,
                node.name,
                tuple(dict.fromkeys(numbers[name] for name in node.input if name in numbers)),
                tuple(numbers[name] for name in node.output if name),
                tuple(dict.fromkeys([*(name for name in node.input if name in self._arrays),
                                     *(name for name in node.output if name in self._arrays)])),
            )
            for node in self.model.graph.node
        ]  # fmt: skip
        outputs = {output.name: numbers[output.name] for output in self.model.graph.output}
        return Trace(
            tuple(operations),
            {numbers[name]: shapes[name] for name in names},
            tuple(numbers[name] for name in order),
            outputs,
            False,
            recorded=_Recorded(names),
        )

    def parameters(self, trace: Trace) -> tuple[ForeignParameter, ...]:
        """Describe the constants by the operators that read them."""
        found: dict[str, ForeignParameter] = {}
        for node in self.model.graph.node:
            for place, name in enumerate(node.input):
                if name in self._arrays and name not in found:
                    found[name] = self._described(node, place, name)
        for name, array in self._arrays.items():
            if name not in found:
                found[name] = ForeignParameter(name, array.shape, name, "", "", "")
        return in_order_of_use(trace, list(found.values()))

    def _described(self, node: NodeProto, place: int, name: str) -> ForeignParameter:
        shape = self._arrays[name].shape
        owner = node.name or node.output[0]
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        role: Role
        role, axes = _VECTORS.get(node.op_type, {}).get(place, ("", ""))
        if node.op_type == "Gemm":
            turned = attributes.get("transB", 0)
            role, axes = ("kernel", "oi" if turned else "io") if place == 1 else ("bias", "c")
        elif node.op_type == "MatMul":
            role, axes = ("kernel", "io" if place == 1 else "oi")
        elif node.op_type in ("Conv", "ConvTranspose"):
            windows = "thw"[5 - len(shape) :]
            first = "oi" if node.op_type == "Conv" else "io"
            role, axes = ("kernel", first + windows) if place == 1 else ("bias", "c")
        elif node.op_type in _GATES and place in (1, 2, 3):
            both = attributes.get("direction", b"") == b"bidirectional"
            gates = _GATES[node.op_type]
            stand: tuple[str, ...] = ()
            for prefix in ("", "backward_")[: 1 + both]:
                local = f"{prefix}{('kernel', 'recurrent', 'bias')[place - 1]}"
                stand += blocks(local, gates) + (second_bias(gates, prefix) if place == 3 else ())
            return ForeignParameter(name, shape, owner, node.op_type, "", "doi" if place < 3 else "", True, stand)
        trainable = role not in ("running_mean", "running_variance")
        return ForeignParameter(name, shape, owner, node.op_type, role, axes, trainable)

    def run(
        self,
        trace: Trace,
        feeds: Mapping[int, Array],
        fetches: Sequence[int],
        upstream: Mapping[int, Array] | None = None,
    ) -> Ran:
        """Cut the section out of the graph and run it; there are no gradients."""
        recorded: _Recorded = trace.recorded
        wanted = tuple(number for number in dict.fromkeys(fetches) if number not in feeds)
        given = dict(feeds)
        if wanted:
            session = self._cut(trace, tuple(feeds), wanted)
            kinds = {item.name: item.type for item in session.get_inputs()}
            arrays = {
                recorded.names[number]: _cast(array, kinds[recorded.names[number]])
                for number, array in feeds.items()
                if recorded.names[number] in kinds
            }
            names = [recorded.names[number] for number in wanted]
            given |= dict(zip(wanted, map(np.asarray, session.run(names, arrays)), strict=True))
        return Ran({number: given[number] for number in fetches})

    def _cut(self, trace: Trace, feeds: tuple[int, ...], fetches: tuple[int, ...]) -> Any:
        recorded: _Recorded = trace.recorded
        key = feeds, fetches
        if key not in recorded.sessions:
            chosen, missing = trace.section(feeds, fetches)
            if missing:
                raise ValueError("the section needs tensors that are not fed")
            nodes = [self.model.graph.node[number] for number in chosen]
            read = {name for node in nodes for name in node.input}
            kinds = _types(self.model)
            inputs = [
                kinds.get(recorded.names[number])
                or helper.make_tensor_value_info(recorded.names[number], onnx.TensorProto.FLOAT, None)
                for number in feeds
                if recorded.names[number] in read
            ]
            graph = helper.make_graph(
                nodes,
                "section",
                inputs,
                [ValueInfoProto(name=recorded.names[number]) for number in fetches],
                [item for item in self.model.graph.initializer if item.name in read],
            )
            model = helper.make_model(
                graph, opset_imports=list(self.model.opset_import), ir_version=self.model.ir_version
            )
            model.functions.extend(self.model.functions)
            recorded.sessions[key] = _session(model)
        return recorded.sessions[key]


def _types(model: ModelProto) -> dict[str, ValueInfoProto]:
    """Return the element types that are known, without shapes: a section takes any."""
    inferred = onnx.shape_inference.infer_shapes(model)
    found = {}
    for item in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        element = item.type.tensor_type.elem_type
        if element:
            found[item.name] = helper.make_tensor_value_info(item.name, element, None)
    return found


def _cast(array: Array, kind: str) -> Array:
    kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}
    return np.ascontiguousarray(array, dtype=kinds.get(kind, array.dtype))


def load(path: Path) -> OnnxModel:
    """Read a file. Raises `InputError` where it is no ONNX model, or one that cannot be compared."""
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker have no common class of errors
        reason = (str(error).strip().splitlines() or ["it cannot be read"])[0]
        raise InputError(f"not a valid ONNX model: {reason}", file=str(path)) from None
    try:
        return wrap(model)
    except InputError as error:
        raise error.located(str(path)) from None


def wrap(model: ModelProto) -> OnnxModel:
    """Take a model that has been read. Raises `InputError` where it cannot be compared."""
    try:
        return OnnxModel(model)
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from None
    except KeyError as error:
        raise InputError(f"the model holds a tensor of a type that ONNX does not know: {error}") from None
