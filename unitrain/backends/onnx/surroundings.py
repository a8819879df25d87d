"""Preprocessing as ONNX operators in front of a model, and the way back from its outputs behind it.

Numbers come in as float64, as tables and NumPy have them, and are scaled in float64: a year less its mean keeps its
digits. Names come in as strings, pixels as uint8.

A row that `unitrain predict` would refuse or leave out (a missing value that nothing fills, a category that training
did not have) cannot be an error inside an ONNX model. Every number of its outputs is NaN, and its class the empty
string.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper, shape_inference

from unitrain.backends.contract import Precision
from unitrain.backends.onnx.model import BATCH
from unitrain.backends.onnx.preprocessing import (
    Categories,
    Feature,
    Integers,
    Numbers,
    Pixels,
    Preprocessing,
    Target,
    Units,
)
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.spec.layers.base import Shape

Array = npt.NDArray[Any]

_ML_OPSET = 3
_FLOAT, _DOUBLE, _INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def with_preprocessing(
    model: ModelProto, graph: Graph, preprocessing: Preprocessing, precision: Precision = "float32"
) -> ModelProto:
    """Put preprocessing around a model that `emit` wrote.

    The model's inputs become those of the data, named like its columns. Its outputs stay, and the predictions in
    terms of the data are added, see `Preprocessing.output_names`. The names of the classes are also in the model's
    metadata: ``classes`` (or ``<output>.classes``), a JSON list.

    Raises
    ------
    InputError
        A feature is used in two ways that need different inputs, or has the name of an output.
    """
    return _Surroundings(model, graph, preprocessing, precision).written()


class _Surroundings:
    """Operators before and behind a model, while they are written."""

    def __init__(self, model: ModelProto, graph: Graph, preprocessing: Preprocessing, precision: Precision) -> None:
        self.model, self.graph, self.preprocessing = model, graph, preprocessing
        self.opset = next(entry.version for entry in model.opset_import if entry.domain == "")
        self.working = np.dtype(precision)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.inputs: dict[str, ValueInfoProto] = {}
        self.accepted: list[str] = []
        self.metadata: dict[str, str] = {}
        self.taken = {name for node in model.graph.node for name in (*node.input, *node.output, node.name)}
        self.taken |= {tensor.name for tensor in model.graph.initializer}
        self.taken |= {feature.name for listed in preprocessing.inputs.values() for feature in listed}
        self.taken |= {name for names in preprocessing.output_names(graph).values() for name in names.values()}

    def written(self) -> ModelProto:
        """Write it all, with the model between."""
        self._check_names()
        prepared = {name: self._input(name, features) for name, features in self.preprocessing.inputs.items()}
        behind = len(self.nodes)
        accepted = self._accepted()
        self._rename_model(prepared)
        before, self.nodes = self.nodes[:behind], self.nodes[behind:]
        for output in self.graph.outputs:
            self._masked_output(output, accepted)
        outputs = list(self.model.graph.output)
        for output, target in self.preprocessing.targets.items():
            outputs += self._target(output, target, accepted)
        return self._assembled(before, outputs)

    # Small parts.

    def op(self, kind: str, name: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add an operator; its output has its name, or ``output``."""
        name = self.unique(name)
        self.nodes.append(helper.make_node(kind, list(inputs), [output or name], name=name, **attributes))
        return output or name

    def unique(self, name: str) -> str:
        """Return the name, with a number behind it if it is taken, and reserve it."""
        found, number = name, 1
        while found in self.taken:
            number += 1
            found = f"{name}_{number}"
        self.taken.add(found)
        return found

    def constant(self, name: str, array: Any, dtype: Any = None) -> str:
        """Hold an array; equal ones that ask for the same name are held once."""
        values = np.array(array, dtype=dtype)
        known = self.constants.get(name)
        if known is not None and known.dtype == values.dtype and np.array_equal(known, values):
            return name
        name = self.unique(name)
        self.constants[name] = values
        return name

    def _reduce(self, kind: str, name: str, tensor: str, axes: Sequence[int]) -> str:
        if self.opset < 18:
            return self.op(kind, name, tensor, axes=list(axes), keepdims=0)
        return self.op(kind, name, tensor, self.constant(f"{name}.axes", list(axes), np.int64), keepdims=0)

    def _rowwise(self, name: str, holds: str, rank: int) -> str:
        """Turn a condition on each element ``[batch, ...]`` into one on each row ``[batch]``."""
        if rank == 1:
            return holds
        number = self.op("Cast", f"{name}.cast", holds, to=TensorProto.INT32)
        smallest = self._reduce("ReduceMin", f"{name}.all", number, range(1, rank))
        return self.op("Cast", name, smallest, to=TensorProto.BOOL)

    def _raw(self, feature: Feature, element: int, shape: Shape) -> str:
        """Declare an input of the data."""
        described = helper.make_tensor_value_info(feature.name, element, [BATCH, *shape])
        known = self.inputs.setdefault(feature.name, described)
        if known != described:
            raise InputError(
                f"the column '{feature.name}' goes into two inputs of the model as different kinds of values, "
                "which one input of an ONNX model cannot be",
                hint="export without --with-preprocessing",
            )
        return feature.name

    # In front of the model.

    def _input(self, name: str, features: Sequence[Feature]) -> str:
        """Build one input of the model from its features; return the tensor."""
        given = self.graph.inputs[name]
        integer = given.dtype == "integer"
        wanted = TensorProto.INT32 if integer else helper.np_dtype_to_tensor_dtype(self.working)
        parts = []
        for columns in _runs(features):
            label = f"{name}.{columns[0].name}" if len(columns) == 1 else f"{name}.numbers"
            part, element = self._feature(label, columns)
            parts.append(part if element == wanted else self.op("Cast", f"{label}.typed", part, to=wanted))
        joined = parts[0] if len(parts) == 1 else self.op("Concat", f"{name}.columns", *parts, axis=1)
        shape = [0, *given.shape] if given.shape else [-1]
        tensor = self.op("Reshape", f"{name}.preprocessed", joined, self.constant(f"{name}.shape", shape, np.int64))
        if not integer and any(isinstance(feature.step, Numbers) for feature in features):
            self._accept_finite(name, tensor, len(given.shape) + 1)
        return tensor

    def _accept_finite(self, name: str, tensor: str, rank: int) -> None:
        """Refuse rows with a NaN or an infinity: for all other numbers x - x is 0."""
        zero = self.op("Sub", f"{name}.zero", tensor, tensor)
        finite = self.op("Not", f"{name}.finite", self.op("IsNaN", f"{name}.nan", zero))
        self.accepted.append(self._rowwise(f"{name}.accepted", finite, rank))

    def _feature(self, name: str, columns: Sequence[Feature]) -> tuple[str, int]:
        """Encode one feature, or several plain columns of numbers; return ``[batch, ..., width]`` and its type."""
        feature = columns[0]
        match feature.step:
            case Numbers():
                return self._numbers(name, columns), _FLOAT
            case Integers():
                return self._integers(name, feature, feature.step), _DOUBLE
            case Categories(one_hot=one_hot):
                return self._categories(name, feature, feature.step), _FLOAT if one_hot else _INT64
            case Pixels():
                return self._pixels(name, feature, feature.step), _FLOAT

    def _column(self, feature: Feature, shape: Shape) -> str:
        """Declare numbers; a plain column gets an axis."""
        tensor = self._raw(feature, _DOUBLE, shape)
        if shape:
            return tensor
        return self.op("Unsqueeze", f"{feature.name}.column", tensor, self.constant("columns", [1], np.int64))

    def _numbers(self, name: str, columns: Sequence[Feature]) -> str:
        steps = [feature.step for feature in columns if isinstance(feature.step, Numbers)]
        parts = [self._column(feature, step.shape) for feature, step in zip(columns, steps, strict=True)]
        tensor = parts[0] if len(parts) == 1 else self.op("Concat", f"{name}.columns", *parts, axis=1)
        if steps[0].fill is not None:
            missing = self.op("IsNaN", f"{name}.missing", tensor)
            fill = [number for step in steps for number in step.fill or ()]
            filler = self.constant(f"{name}.fill", fill, np.float64)
            tensor = self.op("Where", f"{name}.filled", missing, filler, tensor)
        shift = [number for step in steps for number in step.shift]
        scale = [number for step in steps for number in step.scale]
        if any(shift):
            tensor = self.op("Sub", f"{name}.shifted", tensor, self.constant(f"{name}.shift", shift, np.float64))
        if any(number != 1.0 for number in scale):
            tensor = self.op("Div", f"{name}.scaled", tensor, self.constant(f"{name}.scale", scale, np.float64))
        # The run rounds what it has prepared to float32, whatever it works in.
        return self.op("Cast", f"{name}.float", tensor, to=_FLOAT)

    def _integers(self, name: str, feature: Feature, step: Integers) -> str:
        tensor, rank = self._column(feature, step.shape), max(1, len(step.shape)) + 1
        whole = self.op("Equal", f"{name}.whole", tensor, self.op("Floor", f"{name}.floor", tensor))
        low = self.op("GreaterOrEqual", f"{name}.low", tensor, self.constant(f"{name}.least", step.low, np.float64))
        high = self.op("Less", f"{name}.high", tensor, self.constant(f"{name}.most", step.high, np.float64))
        holds = self.op("And", f"{name}.fits", whole, self.op("And", f"{name}.range", low, high))
        self.accepted.append(self._rowwise(f"{name}.accepted", holds, rank))
        # Whatever is refused becomes an index that every table has: the row is masked in the end.
        safe = self.constant(f"{name}.safe", max(0, step.low), np.float64)
        return self.op("Where", f"{name}.index", holds, tensor, safe)

    def _categories(self, name: str, feature: Feature, step: Categories) -> str:
        tensor = self._raw(feature, TensorProto.STRING, ())
        code = self.op(
            "LabelEncoder",
            f"{name}.code",
            tensor,
            domain="ai.onnx.ml",
            keys_strings=[word.encode() for word in step.codes],
            values_int64s=list(step.codes.values()),
            default_int64=step.unseen,
        )
        zero = self.constant(f"{name}.zero", 0, np.int64)
        holds = self.op("GreaterOrEqual", f"{name}.accepted", code, zero)
        self.accepted.append(holds)
        code = self.op("Where", f"{name}.known", holds, code, zero)
        if not step.one_hot:
            return self.op("Unsqueeze", f"{name}.column", code, self.constant("columns", [1], np.int64))
        table = np.zeros((step.width + 1, step.width), np.float32)
        table[: step.width] = np.eye(step.width, dtype=np.float32)
        return self.op("Gather", f"{name}.one_hot", self.constant(f"{name}.table", table), code, axis=0)

    def _pixels(self, name: str, feature: Feature, step: Pixels) -> str:
        tensor = self._raw(feature, TensorProto.UINT8, step.shape)
        tensor = self.op("Cast", f"{name}.float", tensor, to=_FLOAT)
        if any(number != 1.0 for number in step.divisor):
            divisor = self.constant(f"{name}.divisor", step.divisor, np.float32)
            tensor = self.op("Div", f"{name}.scaled", tensor, divisor)
        if any(step.offset):
            tensor = self.op("Sub", f"{name}.shifted", tensor, self.constant(f"{name}.offset", step.offset, np.float32))
        return tensor

    def _accepted(self) -> str | None:
        """Join the conditions on rows; None where every row is accepted."""
        joined = None
        for holds in self.accepted:
            joined = holds if joined is None else self.op("And", "accepted", joined, holds)
        return joined

    # Behind the model.

    def _masked(self, tensor: str, accepted: str | None, rank: int, element: Any, *, output: str) -> str:
        """Give a tensor its last name, with NaN (or no word) in rows that are refused."""
        if accepted is None or np.dtype(element).kind in "iu":
            return self.op("Identity", f"{output}.named", tensor, output=output)
        if rank > 1:
            shape = self.constant(f"{output}.rows", [-1, *[1] * (rank - 1)], np.int64)
            accepted = self.op("Reshape", f"{output}.accepted", accepted, shape)
        nothing = np.array("" if np.dtype(element).kind in "UO" else np.nan, dtype=element)
        refused = self.constant(f"{output}.refused", nothing)
        return self.op("Where", f"{output}.masked", accepted, tensor, refused, output=output)

    def _masked_output(self, output: str, accepted: str | None) -> None:
        """Give out the model's own output, under its name."""
        node = self.graph.outputs[output]
        integer = self.graph.node(node).dtype == "integer"
        rank = len(self.graph.shape(node)) + 1
        element = np.int32 if integer else self.working
        self._masked(self.renamed[output], accepted, rank, element, output=output)

    def _target(self, output: str, target: Target, accepted: str | None) -> list[ValueInfoProto]:
        names = self.preprocessing.output_names(self.graph)[output]
        tensor, shape = self.renamed[output], self.graph.shape(self.graph.outputs[output])
        if isinstance(target, Units):
            return [self._units(names["prediction"], tensor, shape, target, accepted)]
        if target.binary:
            column = self.op("Reshape", f"{output}.logit", tensor, self.constant(f"{output}.one", [-1, 1], np.int64))
            # A logit x against 0: softmax([0, x]) = [1 - sigmoid(x), sigmoid(x)].
            zero = self.op("Sub", f"{output}.zero", column, column)
            tensor = self.op("Concat", f"{output}.logits", zero, column, axis=1)
        width = len(target.names)
        probabilities = self._masked(
            self.op("Softmax", f"{output}.softmax", tensor, axis=1),
            accepted,
            2,
            self.working,
            output=names["probabilities"],
        )
        # Of equal ones the first is chosen, as NumPy does.
        code = self.op("ArgMax", f"{output}.class", tensor, axis=1, keepdims=0)
        words = self.constant(f"{output}.names", list(target.names), object)
        chosen = self._masked(
            self.op("Gather", f"{output}.word", words, code, axis=0), accepted, 1, object, output=names["prediction"]
        )
        self.metadata["classes" if len(self.graph.outputs) == 1 else f"{output}.classes"] = json.dumps(target.names)
        element = helper.np_dtype_to_tensor_dtype(self.working)
        return [
            helper.make_tensor_value_info(chosen, TensorProto.STRING, [BATCH]),
            helper.make_tensor_value_info(probabilities, element, [BATCH, width]),
        ]

    def _units(self, name: str, tensor: str, shape: Shape, target: Units, accepted: str | None) -> ValueInfoProto:
        if shape == (1,):
            tensor = self.op("Reshape", f"{name}.flat", tensor, self.constant(f"{name}.shape", [-1], np.int64))
            shape = ()
        if any(target.shift) or any(number != 1.0 for number in target.scale):
            # In float64, as the run does it, and rounded to float32 in the end.
            wide = self.op("Cast", f"{name}.wide", tensor, to=_DOUBLE)
            scale = self._numbers_of(f"{name}.scale", target.scale)
            wide = self.op("Mul", f"{name}.scaled", wide, scale)
            wide = self.op("Add", f"{name}.shifted", wide, self._numbers_of(f"{name}.shift", target.shift))
            tensor = wide
        tensor = self.op("Cast", f"{name}.float", tensor, to=_FLOAT)
        self._masked(tensor, accepted, len(shape) + 1, np.float32, output=name)
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])

    def _numbers_of(self, name: str, numbers: tuple[float, ...]) -> str:
        return self.constant(name, numbers[0] if len(numbers) == 1 else numbers, np.float64)

    # The whole.

    def _check_names(self) -> None:
        outputs = {*self.graph.outputs}
        outputs |= {name for names in self.preprocessing.output_names(self.graph).values() for name in names.values()}
        for features in self.preprocessing.inputs.values():
            for feature in features:
                if feature.name in outputs:
                    raise InputError(
                        f"the column '{feature.name}' has the name of an output, and an ONNX model's inputs and "
                        "outputs have names of their own",
                        hint="rename the column or the output, or export without --with-preprocessing",
                    )

    def _rename_model(self, prepared: Mapping[str, str]) -> None:
        """Connect the model's inputs, free the names of its outputs, and of what meets a name of the data."""
        features = {feature.name for listed in self.preprocessing.inputs.values() for feature in listed}
        added = {name for names in self.preprocessing.output_names(self.graph).values() for name in names.values()}
        self.renamed = {output: self.unique(f"{output}.raw") for output in self.graph.outputs}
        graph = self.model.graph
        inside = {name for node in graph.node for name in node.output} | {item.name for item in graph.initializer}
        names = {name: self.unique(f"{name}.inner") for name in inside & (features | added)}
        names |= prepared
        names |= self.renamed
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for tensor in graph.initializer:
            tensor.name = names.get(tensor.name, tensor.name)

    def _assembled(self, before: list[NodeProto], outputs: list[ValueInfoProto]) -> ModelProto:
        graph = self.model.graph
        tensors = [*graph.initializer, *(_tensor(array, name) for name, array in self.constants.items())]
        versions = [helper.make_opsetid("", self.opset), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
        if not any(node.domain for node in before):
            versions = versions[:1]
        model = helper.make_model(
            helper.make_graph(
                [*before, *graph.node, *self.nodes], graph.name, list(self.inputs.values()), outputs, tensors
            ),
            opset_imports=versions,
            ir_version=self.model.ir_version,
            producer_name=self.model.producer_name,
            producer_version=self.model.producer_version,
        )
        helper.set_model_props(model, self.metadata)
        model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        checker.check_model(model, full_check=True)
        return model


def _runs(features: Sequence[Feature]) -> list[list[Feature]]:
    """Put neighbouring plain columns of numbers together, which are scaled at once; others stay by themselves."""

    def key(item: tuple[int, Feature]) -> Any:
        position, feature = item
        step = feature.step
        plain = isinstance(step, Numbers) and not step.shape
        return ("numbers", step.fill is None) if plain and isinstance(step, Numbers) else position

    return [[feature for _, feature in run] for _, run in groupby(enumerate(features), key)]


def _tensor(array: Array, name: str) -> TensorProto:
    if array.dtype == object:
        words = [str(word).encode() for word in array.reshape(-1)]
        return TensorProto(name=name, data_type=TensorProto.STRING, dims=array.shape, string_data=words)
    return numpy_helper.from_array(array, name)
