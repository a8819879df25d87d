"""ONNX operators while they are written, with the arrays that they need and names that nothing else has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


class Operators:
    """Operators that are written one after the other.

    Parameters
    ----------
    opset
        Of ONNX, which decides how some are spelt.
    taken
        Names that are given already.
    """

    def __init__(self, opset: int, taken: Iterable[str]) -> None:
        self.opset, self.taken = opset, set(taken)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}

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

    def reduce(self, kind: str, name: str, tensor: str, axes: Sequence[int]) -> str:
        """Add a reduction over axes, which go away."""
        if self.opset < 18:
            return self.op(kind, name, tensor, axes=list(axes), keepdims=0)
        return self.op(kind, name, tensor, self.constant(f"{name}.axes", list(axes), np.int64), keepdims=0)

    def rowwise(self, name: str, holds: str, rank: int) -> str:
        """Turn a condition on each element ``[batch, ...]`` into one on each row ``[batch]``."""
        if rank == 1:
            return holds
        number = self.op("Cast", f"{name}.cast", holds, to=TensorProto.INT32)
        smallest = self.reduce("ReduceMin", f"{name}.all", number, range(1, rank))
        return self.op("Cast", name, smallest, to=TensorProto.BOOL)

    def tensors(self) -> list[TensorProto]:
        """Return the arrays."""
        return [_tensor(array, name) for name, array in self.constants.items()]


def _tensor(array: Array, name: str) -> TensorProto:
    if array.dtype == object:
        words = [str(word).encode() for word in array.reshape(-1)]
        return TensorProto(name=name, data_type=TensorProto.STRING, dims=array.shape, string_data=words)
    return numpy_helper.from_array(array, name)
