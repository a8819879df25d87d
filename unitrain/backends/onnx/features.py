"""Columns and pixels as the inputs of a model: what stands in front of it, in ONNX operators."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from unitrain.backends.onnx.model import BATCH
from unitrain.backends.onnx.operators import Operators
from unitrain.backends.onnx.preprocessing import Categories, Feature, Integers, Numbers, Pixels
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.spec.layers.base import Shape

_FLOAT, _DOUBLE, _INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


class Features:
    """The inputs of a graph, made of features of the data.

    Parameters
    ----------
    write
        Takes the operators.
    graph
        Whose inputs they become.
    working
        In what the model computes.
    """

    def __init__(self, write: Operators, graph: Graph, working: np.dtype[Any]) -> None:
        self.op, self.constant, self.rowwise = write.op, write.constant, write.rowwise
        self.graph, self.working = graph, working
        self.inputs: dict[str, ValueInfoProto] = {}
        self.accepted: list[str] = []

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

    def input(self, name: str, features: Sequence[Feature]) -> str:
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
        self.accepted.append(self.rowwise(f"{name}.accepted", finite, rank))

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
        self.accepted.append(self.rowwise(f"{name}.accepted", holds, rank))
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

    def all_accepted(self) -> str | None:
        """Join the conditions on rows; None where every row is accepted."""
        joined = None
        for holds in self.accepted:
            joined = holds if joined is None else self.op("And", "accepted", joined, holds)
        return joined


def _runs(features: Sequence[Feature]) -> list[list[Feature]]:
    """Put neighbouring plain columns of numbers together, which are scaled at once; others stay by themselves."""

    def key(item: tuple[int, Feature]) -> Any:
        position, feature = item
        step = feature.step
        plain = isinstance(step, Numbers) and not step.shape
        return ("numbers", step.fill is None) if plain and isinstance(step, Numbers) else position

    return [[feature for _, feature in run] for _, run in groupby(enumerate(features), key)]
