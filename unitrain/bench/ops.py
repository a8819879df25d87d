"""Tensor operations: what each has to do, its operands, and what is right in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays
from unitrain.backends.toolkit import Call
from unitrain.bench.machine import best_of
from unitrain.bench.results import Work
from unitrain.bench.runner import Conditions, Entry, Experiment, Right
from unitrain.bench.sides import Side

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

# Largest error that a float32 result may have, relative to its size: rounding gives 1e-7 to 1e-6.
TOLERANCE = 2e-5
_SIZE = np.dtype(np.float32).itemsize


@dataclass(frozen=True)
class Operation:
    """An operation on tensors of certain shapes.

    Parameters
    ----------
    operation
        One of `toolkit.OPERATIONS`.
    name
        Name of the case.
    shapes
        Of the operands.
    """

    operation: str
    name: str
    shapes: tuple[Shape, ...]

    @property
    def result(self) -> Shape:
        """Shape of the result."""
        first = self.shapes[0]
        match self.operation:
            case "matmul" | "batched matmul":
                return (*first[:-1], self.shapes[1][-1])
            case "sum":
                return first[:-1]
            case "convolution":
                batch, height, width, _ = first
                rows, columns, _, filters = self.shapes[1]
                return batch, height - rows + 1, width - columns + 1, filters
            case _:
                return first

    @property
    def work(self) -> Work:
        """FLOP and bytes.

        A matrix product ``[m, k] x [k, n]`` is 2 m k n; a convolution 2 for each window element, channel and filter at
        each position; add, subtract, multiply, exp and sum are 1 an element; softmax is 4: subtract, exp, add, divide.
        Comparisons are not counted.
        """
        elements = prod(self.shapes[0])
        match self.operation:
            case "matmul" | "batched matmul":
                flops = 2 * prod(self.result) * self.shapes[0][-1]
            case "convolution":
                rows, columns, channels, _ = self.shapes[1]
                flops = 2 * prod(self.result) * rows * columns * channels
            case "softmax":
                flops = 4 * elements
            case _:
                flops = elements
        return Work(float(flops), float(_SIZE * (sum(map(prod, self.shapes)) + prod(self.result))))

    @property
    def about(self) -> str:
        """The operands' shapes."""
        return f"float32 {' and '.join(' x '.join(map(str, shape)) for shape in self.shapes)}"

    def operands(self, generator: np.random.Generator) -> list[Array]:
        """Draw the operands, standard normal."""
        return [generator.standard_normal(shape, dtype=np.float32) for shape in self.shapes]

    def expected(self, operands: Sequence[Array]) -> Arrays:
        """Compute the result in float64."""
        wide = [operand.astype(np.float64) for operand in operands]
        return {"result": _RIGHT[self.operation](*wide)}


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = e / e.sum(axis=-1, keepdims=True)
    return result


def _convolution(x: Array, kernel: Array) -> Array:
    """Sum over the taps of the window: y[n, i, j] = sum_(r, c) x[n, i + r, j + c] K[r, c]."""
    rows, columns = kernel.shape[:2]
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    y: Array = np.zeros((len(x), height, width, kernel.shape[-1]))
    for row in range(rows):
        for column in range(columns):
            y += x[:, row : row + height, column : column + width] @ kernel[row, column]
    return y


_RIGHT: dict[str, Callable[..., Array]] = {
    "matmul": np.matmul,
    "batched matmul": np.matmul,
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "exp": np.exp,
    "sum": lambda x: np.sum(x, axis=-1),
    "softmax": _softmax,
    "convolution": _convolution,
}


def catalogue(size: int, *, quick: bool = False) -> list[Operation]:
    """Return the operations for matrices of ``size``: that one first, then the others, then the sweep of sizes.

    The elementwise operations have as many elements as the matrix. A batch of products has matrices of a sixteenth of
    the size, and as many as hold a quarter of its elements. The sweep halves the size down to 16.
    """
    matrix = (size, size)
    inner = max(size // 16, 1)
    batch = max(size * size // (4 * inner * inner), 1)
    # 32 to 64 channels on images: the second convolution of a small network.
    images = (8 if quick else 32, 28, 28, 32)
    found = [
        Operation("matmul", f"matmul {size}", (matrix, matrix)),
        Operation("batched matmul", "batched matmul", ((batch, inner, inner), (batch, inner, inner))),
        *(Operation(name, name, (matrix, matrix)) for name in ("add", "subtract", "multiply")),
        *(Operation(name, name, (matrix,)) for name in ("exp", "sum", "softmax")),
        Operation("convolution", "convolution", (images, (3, 3, 32, 64))),
    ]
    smaller = size // 2
    while smaller >= 16:
        found.append(Operation("matmul", f"matmul {smaller}", ((smaller, smaller), (smaller, smaller))))
        smaller //= 4 if quick else 2
    return found


def experiments(
    sides: Sequence[Side], device: str, conditions: Conditions, size: int, *, quick: bool = False
) -> list[Experiment]:
    """Return one experiment an operation."""
    return [_experiment(operation, sides, device, conditions) for operation in catalogue(size, quick=quick)]


def _experiment(operation: Operation, sides: Sequence[Side], device: str, conditions: Conditions) -> Experiment:
    @cache
    def operands() -> list[Array]:
        return operation.operands(conditions.generator("ops", operation.name))

    def build(side: Side) -> Call | None:
        return side.toolkit.operation(operation.operation, operands(), side.device)

    return Experiment(
        "ops",
        operation.name,
        operation.about,
        operation.work,
        [Entry(side.name, side, partial(build, side)) for side in sides],
        lambda: Right(operation.expected(operands()), TOLERANCE),
        device,
    )


def best_seconds(side: Side, operation: str, shapes: Sequence[Shape], seconds: float, calls: int = 1) -> float | None:
    """Return the least time of an operation on ones, of ``calls`` one after another; None where there is none."""
    call = side.toolkit.operation(operation, [np.ones(shape, np.float32) for shape in shapes], side.device)
    if call is None:
        return None

    def run() -> None:
        for _ in range(calls):
            call.run()

    return best_of(run, side.wait, seconds) / calls
