"""What can be drawn at all: the options of each layer that fit some input, found by trying, and their turns.

Options drawn by chance alone would leave rare ones out of a few hundred models. So each layer has rows, in which every
option that is possible stands once, and a model builds on the rows whose turn it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from unitrain.spec.layers import LAYERS, LayerSpec
from unitrain.spec.layers.base import Shape, ShapeError
from unitrain.verify.fuzz.fields import choose, idle, kind_of, options, values
from unitrain.verify.fuzz.hints import Option, pick
from unitrain.weights.random import stream

# A value has at most this many numbers a sample, and a layer at most this many weights.
LARGEST_VALUE, LARGEST_LAYER = 400, 1500
# How often an input has 0, 1, ... axes.
RANKS = (0.04, 0.22, 0.28, 0.42, 0.04)
# How often inputs are drawn on which a layer may fit, and values of its options for each.
TRIES, VALUES = 40, 4

Row = Mapping[str, Option]


@dataclass(frozen=True)
class Drawn:
    """A layer that fits its inputs: its fields as YAML has them, checked, and the shape of its output.

    ``sides`` are the shapes of the values that its side inputs want, by field; there a word stands for their names.
    """

    fields: dict[str, Any]
    layer: LayerSpec
    shape: Shape
    sides: Mapping[str, tuple[Shape, ...]]


@dataclass(frozen=True)
class Profile:
    """What a layer can be.

    Parameters
    ----------
    possible
        Field to the options with which the layer fits some input.
    reads, gives
        Numbers of axes of inputs and outputs, batch left out.
    """

    possible: Mapping[str, tuple[Option, ...]]
    reads: frozenset[int]
    gives: frozenset[int]


def draw_shape(generator: np.random.Generator, rank: int | None = None) -> Shape:
    """Draw the shape of a number, vector, sequence, image or volume: small, and the channels few."""
    if rank is None:
        rank = int(np.searchsorted(np.cumsum(RANKS), generator.random()))
    if rank < 2:
        return tuple(int(extent) for extent in generator.integers(2, 9, rank))
    longest = {2: 11, 3: 9, 4: 4}[rank]
    sizes = [int(extent) for extent in generator.integers(2, longest + 1, rank - 1)]
    return (*sizes, int(generator.integers(1, 7 if rank < 3 else 5)))


def draw_layer(
    layer: type[LayerSpec], generator: np.random.Generator, shapes: tuple[Shape, ...], pins: Row | None = None
) -> Drawn | None:
    """Draw the fields of a layer for inputs of given shapes; None when what is drawn does not fit or is too large.

    The options are chosen once, and values drawn for them several times: else those that seldom fit would be rare.
    """
    chosen = choose(layer, generator, pins, often=0.6)
    for _ in range(VALUES):
        fields = values(layer, chosen, generator, shapes)
        if pins and not fields.keys() >= pins.keys():
            continue
        try:
            checked, sides = _with_sides(layer, fields, generator, shapes)
            every = (*shapes, *chain(*sides.values()))
            shape = checked.output_shape(*every)
            weights = sum(parameter.size for parameter in checked.parameters(*every).values())
        except (ValidationError, ShapeError):
            continue
        if 0 < prod(shape) <= LARGEST_VALUE and weights <= LARGEST_LAYER:
            return Drawn(fields, checked, shape, sides)
    return None


def _with_sides(
    layer: type[LayerSpec], fields: dict[str, Any], generator: np.random.Generator, shapes: tuple[Shape, ...]
) -> tuple[LayerSpec, dict[str, tuple[Shape, ...]]]:
    """Check a layer, and draw the shapes of its side inputs, for each of which ``fields`` then hold a word."""
    checked = layer.model_validate(fields)
    given = checked.side_names()
    if not given:
        return checked, {}
    wanted = checked.side_shapes(*shapes)
    # One extent for all that are free: of keys and their mask, it is one.
    free = int(generator.integers(2, 6))
    sides = {
        name: tuple(tuple(free if extent is None else extent for extent in shape) for shape in wanted[name])
        for name in given
    }
    fields |= {name: ["given"] * len(found) for name, found in sides.items()}
    return layer.model_validate(fields), sides


def _fits(layer: type[LayerSpec], generator: np.random.Generator, pins: Row, ranks: frozenset[int]) -> Drawn | None:
    """Try a layer with some options settled on inputs of several shapes; return it as it fits one of them."""
    for _ in range(TRIES):
        shapes = (draw_shape(generator, pick(generator, sorted(ranks))),) * max(layer.arity[0], 1)
        drawn = draw_layer(layer, generator, shapes, pins)
        if drawn is not None:
            return drawn
    return None


@cache
def profile(layer: type[LayerSpec]) -> Profile:
    """Find out by trying what a layer can be; always the same."""
    generator = stream(0, "fuzz", "profile", kind_of(layer))
    every = range(len(RANKS))
    reads = frozenset(rank for rank in every if _fits(layer, generator, {}, frozenset({rank})) is not None)
    possible = {
        name: tuple(
            option
            for option in choices
            if reads and _fits(layer, generator, _row(layer, name, option), reads) is not None
        )
        for name, choices in options(layer).items()
    }
    given = [_fits(layer, generator, {}, frozenset({rank})) for rank in reads for _ in range(12)]
    return Profile(possible, reads, frozenset(len(drawn.shape) for drawn in given if drawn is not None))


@cache
def rows(spec: type[BaseModel]) -> tuple[Row, ...]:
    """Return rows of options in which every possible option of a specification stands; always the same."""
    generator = stream(0, "fuzz", "rows", kind_of(spec))
    layer = spec if issubclass(spec, LayerSpec) else None
    known = profile(layer).possible if layer is not None else options(spec)
    waiting = {name: [choices[int(i)] for i in generator.permutation(len(choices))] for name, choices in known.items()}
    made: list[Row] = []
    while any(waiting.values()) or not made:
        row: dict[str, Option] = {}
        for name, rest in waiting.items():
            # What leaves a parameter out comes after all of that parameter's initialisers.
            free = [option for option in rest if not (option.label == "false" and _initialisers(name, waiting))]
            if free and name not in row:
                row |= _row(spec, name, free[0])
        while layer is not None and row and _fits(layer, generator, row, profile(layer).reads) is None:
            del row[pick(generator, list(row))]
        for name, option in row.items():
            if option in waiting[name]:
                waiting[name].remove(option)
        made.append(row)
        if not row:
            break
    return tuple(made)


def _initialisers(name: str, waiting: Mapping[str, list[Option]]) -> bool:
    return bool(name.startswith("use_") and waiting.get(f"{name.removeprefix('use_')}_initializer"))


def _row(spec: type[BaseModel], name: str, option: Option) -> dict[str, Option]:
    """Return a row that settles one field, and lets it have an effect."""
    use = f"use_{name.removesuffix('_initializer')}"
    used = [choice for choice in options(spec).get(use, ()) if choice.label == "true"]
    return {**({use: used[0]} if idle(name, {use: False}) and used else {}), name: option}


@cache
def drawable() -> tuple[type[LayerSpec], ...]:
    """Return the layers that fit some input as they are drawn; one that does not lacks a hint in `hints`."""
    return tuple(layer for layer in LAYERS if profile(layer).reads)


@cache
def _layer_rows() -> tuple[tuple[type[LayerSpec], Row], ...]:
    return tuple((layer, row) for layer in drawable() for row in rows(layer))


def turn(seed: int, number: int) -> tuple[type[LayerSpec], Row]:
    """Return the layer whose turn is ``number``, and the options it is to have; all have theirs in every round."""
    every = _layer_rows()
    around, place = divmod(number, len(every))
    return every[_order(seed, "rows", around, len(every))[place]]


@cache
def pairs() -> tuple[tuple[type[LayerSpec], type[LayerSpec]], ...]:
    """Return the layers of which one can read the other's result, by kind of value and number of axes."""
    return tuple((first, second) for first in drawable() for second in drawable() if _adjacent(first, second))


def _adjacent(first: type[LayerSpec], second: type[LayerSpec]) -> bool:
    integers = first.accepts == "any" and second.accepts in ("any", "integer")
    floats = second.accepts != "integer"
    return (integers or floats) and bool(profile(first).gives & profile(second).reads)


def pair_turn(seed: int, number: int) -> tuple[type[LayerSpec], type[LayerSpec]]:
    """Return the pair of adjacent layers whose turn is ``number``."""
    around, place = divmod(number, len(pairs()))
    return pairs()[_order(seed, "pairs", around, len(pairs()))[place]]


@lru_cache(maxsize=8)
def _order(seed: int, what: str, around: int, count: int) -> tuple[int, ...]:
    return tuple(int(place) for place in stream(seed, "fuzz", what, around).permutation(count))
