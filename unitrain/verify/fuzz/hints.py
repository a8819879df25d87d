"""Hints for the fuzzer where the type of a field says too little: sizes of small models, moderate numbers, shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from pydantic import BaseModel

from unitrain.spec.layers.base import Shape

Generator = np.random.Generator
Shapes = Sequence[Shape]
Draw = Callable[[Generator, Shapes], Any]


@dataclass(frozen=True)
class Option:
    """A class of values that a field may have.

    Parameters
    ----------
    label
        What it is called: the value itself where it is one.
    draw
        Draws a value as YAML would have it, for inputs of given shapes.
    holds
        Tells whether a checked value belongs to it.
    spec
        The specification that the value is, if it is one.
    word
        The word that the value is, if it is no other.
    """

    label: str
    draw: Draw
    holds: Callable[[Any], bool]
    spec: type[BaseModel] | None = None
    word: str | None = None


def pick(generator: Generator, choices: Sequence[Any]) -> Any:
    """Draw one of several things, whatever they are."""
    return choices[int(generator.integers(len(choices)))]


# The most that a number of this name is in a small model; others exceed their least value by 2 at most.
MOST: Mapping[str, int] = {"units": 6, "filters": 6, "multiplier": 3, "width": 4, "groups": 4}

# Numbers that keep values, updates and their rounding moderate, where the type allows more.
NUMBERS: Mapping[str, tuple[float | int, ...]] = {
    "vocabulary": (8, 11),
    "epsilon": (1e-2, 1e-3, 1e-5, 1e-6),
    "momentum": (0.0, 0.5, 0.9, 0.99),
    "rate": (0.0, 0.1, 0.5, 0.8),
    "slope": (0.0, 0.01, 0.3, 1.0),
    "alpha": (0.0, 0.3, 1.0, 1.7),
    "value": (-0.5, 0.0, 0.75),
    "amount": (-0.5, 0.75),
    # Of small and negative numbers no other power is moderate.
    "exponent": (1.0, 2.0, 3.0),
    "rotary_base": (100.0, 10000.0),
    "base": (100.0, 10000.0),
    "low": (-0.5, -0.05),
    "high": (0.05, 0.5),
    "stddev": (0.05, 0.3),
    "gain": (0.5, 1.0, 1.5),
    "lr": (1e-3, 1e-2, 3e-2),
    "weight_decay": (0.0, 1e-2, 0.1),
    "l2": (0.0, 1e-3, 1e-2),
    "clip_norm": (0.1, 1.0),
    "clip_value": (0.01, 0.1),
    "ema": (0.5, 0.9),
    "beta1": (0.0, 0.8, 0.9),
    "beta2": (0.9, 0.99, 0.999),
    "decay": (0.0, 0.9, 0.99),
    "delta": (0.5, 1.0, 2.0),
    "label_smoothing": (0.0, 0.1, 0.3),
    "every": (1.0, 2.0, 2.5),
    "warmup": (0.0, 2.0, 3.0),
    "length": (3.0, 8.0),
    "period": (2.0, 4.0),
    "power": (0.5, 1.0, 2.0),
    "milestones": (1.0, 2.0, 5.0),
    "start_divisor": (2.0, 25.0),
    "end_divisor": (10.0, 1e4),
}


def _reshaped(open_axis: bool) -> Draw:
    def draw(generator: Generator, shapes: Shapes) -> list[int]:
        rest = prod(shapes[0])
        shape = []
        for _ in range(int(generator.integers(0, 3))):
            shape.append(pick(generator, [extent for extent in range(1, rest + 1) if rest % extent == 0]))
            rest //= shape[-1]
        shape.insert(int(generator.integers(len(shape) + 1)), -1 if open_axis else rest)
        return shape

    return draw


def _permutation(generator: Generator, shapes: Shapes) -> list[int]:
    return [int(axis) for axis in generator.permutation(len(shapes[0]))]


def _amounts(zero: bool) -> Draw:
    def draw(generator: Generator, shapes: Shapes) -> list[list[int]]:
        axes = int(generator.integers(1, max(len(shapes[0]), 1) + 1))
        return [[0, 0] if zero else [int(part) for part in generator.integers(0, 3, 2)] for _ in range(axes)]

    return draw


def _patch(equal: bool) -> Draw:
    def draw(generator: Generator, shapes: Shapes) -> list[int]:
        height, width = (*shapes[0], 1, 1)[:2]
        sides = [
            (high, wide)
            for high in range(1, min(height, 4) + 1)
            for wide in range(1, min(width, 4) + 1)
            if not height % high and not width % wide and (high == wide) == equal
        ]
        return list(pick(generator, sides or [(1, 1)]))

    return draw


def _in_order(value: Any) -> bool:
    return list(value) == sorted(value)


def _axis(sign: int) -> Draw:
    def draw(generator: Generator, shapes: Shapes) -> int:
        rank = max(len(shapes[0]), 1)
        return int(generator.integers(rank)) if sign > 0 else -1 - int(generator.integers(rank))

    return draw


def _sizes(generator: Generator, shapes: Shapes) -> list[int]:
    """Divide some axis into two or three parts."""
    extent = pick(generator, shapes[0] or (1,))
    cuts = sorted({int(place) for place in generator.integers(1, max(extent, 2), 2)})
    return [end - start for start, end in pairwise([0, *cuts, max(extent, 2)])]


def _class_weights(generator: Generator, shapes: Shapes) -> list[float]:
    return [float(pick(generator, (0.5, 1.0, 2.0))) for _ in range(shapes[0][-1] if shapes[0] else 1)]


def _class(generator: Generator, shapes: Shapes) -> int:
    return int(generator.integers(shapes[0][-1] if shapes[0] else 1))


NONE = Option("none", lambda generator, shapes: None, lambda value: value is None)
# A side input: the word stands for names that are found once the layer's shapes are known.
GIVEN = Option("given", lambda generator, shapes: ["given"], lambda value: value is not None)


def _stated(draw: Draw) -> tuple[Option, ...]:
    return (NONE, Option("stated", draw, lambda value: value is not None))


def _either_end(front: Draw, back: Draw) -> tuple[Option, ...]:
    return (
        Option("from the front", front, lambda value: value is not None and value >= 0),
        Option("from the back", back, lambda value: value is not None and value < 0),
    )


def _between(least: int, most: int) -> Draw:
    return lambda generator, shapes: int(generator.integers(least, most + 1))


def _one_of(*numbers: float) -> tuple[Option, ...]:
    def option(number: float) -> Option:
        return Option(f"{number:g}", lambda generator, shapes: number, lambda value: value == number)

    return tuple(map(option, numbers))


# What depends on the shape of the input; for a loss that is the output it trains.
SHAPED: Mapping[str, tuple[Option, ...]] = {
    "reshape.shape": (
        Option("open", _reshaped(True), lambda value: -1 in value),
        Option("closed", _reshaped(False), lambda value: -1 not in value),
    ),
    "patch_embedding.patch": (
        Option("equal", _patch(True), lambda value: value[0] == value[1]),
        Option("different", _patch(False), lambda value: value[0] != value[1]),
    ),
    "permute.axes": (
        Option("in order", lambda g, shapes: list(range(len(shapes[0]))), _in_order),
        Option("reordered", _permutation, lambda value: not _in_order(value)),
    ),
    "padding.amounts": (
        Option("0", _amounts(True), lambda value: not any(map(any, value))),
        Option("more", _amounts(False), lambda value: any(map(any, value))),
    ),
    "split.sizes": _stated(_sizes),
    "scale.factor": _one_of(-1.5, 0.0, 0.5),
    **{
        f"{kind}.axis": _either_end(_axis(1), _axis(-1))
        for kind in ("softmax", "concatenate", "slice", "split", "select", "stack", "sum", "mean", "max")
    },
    "select.index": _either_end(_between(0, 2), _between(-2, -1)),
    "slice.start": _either_end(_between(0, 2), _between(-3, -1)),
    "slice.stop": (NONE, *_either_end(_between(1, 4), _between(-2, -1))),
    "cross_entropy.class_weights": _stated(_class_weights),
    "binary_cross_entropy.class_weights": _stated(lambda generator, shapes: _class_weights(generator, [(2,)])),
    "cross_entropy.ignore_index": _stated(_class),
}
