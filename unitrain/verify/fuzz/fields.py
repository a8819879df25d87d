"""Options of the fields of a specification, read from their types: what the fuzzer draws, and counts as covered.

An option is a class of values: ``same`` of a padding, ``different`` of a pair of strides, ``he`` of an initialiser.
A new layer needs nothing here. The tables of hints say only what a type cannot: how large a small model's sizes are,
which numbers keep its values moderate, and what depends on the shape of a layer's input.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from unitrain.spec.layers.base import LayerSpec
from unitrain.verify.fuzz.hints import GIVEN, MOST, NONE, NUMBERS, SHAPED, Generator, Option, Shapes, pick

# Not drawn: what names a layer and ties it to others.
LEFT = frozenset({"type", "name", "inputs"})


def kind_of(spec: type[BaseModel]) -> str:
    """Return the word by which a specification is chosen, or its class's name."""
    field = spec.model_fields.get("type")
    return str(field.default) if field is not None else spec.__name__


@cache
def options(spec: type[BaseModel]) -> Mapping[str, tuple[Option, ...]]:
    """Return the options of every field that is drawn; a field whose type is not understood has none."""
    sides = spec.side_inputs if issubclass(spec, LayerSpec) else {}
    return {
        name: ((GIVEN,) if field.is_required() else (NONE, GIVEN))
        if name in sides
        else SHAPED.get(f"{kind_of(spec)}.{name}") or _unique(_of_type(field.annotation, list(field.metadata), name))
        for name, field in spec.model_fields.items()
        if name not in LEFT
    }


def option_of(spec: BaseModel, name: str) -> str:
    """Return the label of the option that a field's value belongs to, or ``other``."""
    value = getattr(spec, name)
    return next((option.label for option in options(type(spec))[name] if option.holds(value)), "other")


def idle(name: str, values: Mapping[str, Any]) -> bool:
    """Tell whether a field has no effect beside others: an initialiser of what ``use_...: false`` leaves out."""
    return name.endswith("_initializer") and values.get(f"use_{name.removesuffix('_initializer')}") is False


def draw_fields(
    spec: type[BaseModel],
    generator: Generator,
    shapes: Shapes = (),
    pins: Mapping[str, Option] | None = None,
    often: float = 0.5,
) -> dict[str, Any]:
    """Draw the fields of a specification, as YAML would have them.

    Parameters
    ----------
    spec
        The specification's class.
    generator
        Where randomness comes from.
    shapes
        Shapes of a layer's inputs, or of the output that a loss trains.
    pins
        Fields whose option is settled.
    often
        Chance that a field which has a default is drawn.
    """
    return values(spec, choose(spec, generator, pins, often), generator, shapes)


def choose(
    spec: type[BaseModel], generator: Generator, pins: Mapping[str, Option] | None = None, often: float = 0.5
) -> dict[str, Option]:
    """Choose the options of the fields that are drawn; arguments as of `draw_fields`."""
    pins = pins or {}
    chosen = {}
    for name, choices in options(spec).items():
        if name in pins:
            chosen[name] = pins[name]
        elif choices and (spec.model_fields[name].is_required() or generator.random() < often):
            chosen[name] = pick(generator, choices)
    return chosen


def values(
    spec: type[BaseModel], chosen: Mapping[str, Option], generator: Generator, shapes: Shapes = ()
) -> dict[str, Any]:
    """Draw a value of each option, as YAML would have it; what has no effect is left out."""
    drawn: dict[str, Any] = {} if "type" not in spec.model_fields else {"type": kind_of(spec)}
    drawn |= {name: option.draw(generator, shapes) for name, option in chosen.items()}
    effective = {**_defaults(spec), **drawn}
    return {name: value for name, value in drawn.items() if not idle(name, effective)}


@cache
def _defaults(spec: type[BaseModel]) -> Mapping[str, Any]:
    return {name: field.default for name, field in spec.model_fields.items()}


def _unique(choices: Sequence[Option]) -> tuple[Option, ...]:
    return tuple({option.label: option for option in choices}.values())


def _of_type(annotation: Any, metadata: list[Any], name: str) -> list[Option]:
    """Return the options of a type, with the constraints of ``metadata``, for a field called ``name``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _of_type(arguments[0], [*arguments[1:], *metadata], name)
    if origin is Literal:
        return [_exactly(value) for value in arguments]
    if origin in (Union, types.UnionType):
        return [option for argument in arguments for option in _of_type(argument, metadata, name)]
    if annotation is type(None):
        return [NONE]
    if annotation is bool:
        return [_exactly(False), _exactly(True)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [_nested(annotation)]
    if annotation in (int, float) and name in NUMBERS:
        return [_exactly(annotation(value)) for value in NUMBERS[name]]
    if annotation is int:
        least = _least(metadata, 0)
        return _whole(least, max(MOST.get(name, least + 2), least + 1))
    if annotation is float:
        return _fraction(metadata)
    if origin is tuple:
        return _tuple(arguments, name)
    return []


def _exactly(value: Any) -> Option:
    label = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return Option(
        label,
        lambda generator, shapes: value,
        lambda found: type(found) is type(value) and found == value,
        word=value if isinstance(value, str) else None,
    )


def _nested(spec: type[BaseModel]) -> Option:
    return Option(
        kind_of(spec),
        lambda generator, shapes: draw_fields(spec, generator, shapes),
        lambda value: type(value) is spec,
        spec,
    )


def _whole(least: int, most: int) -> list[Option]:
    return [
        _exactly(least),
        Option(
            "more",
            lambda generator, shapes: int(generator.integers(least + 1, most + 1)),
            lambda value: type(value) is int and value > least,
        ),
    ]


def _fraction(metadata: list[Any]) -> list[Option]:
    """Return the options of a float: its closed ends, and between them."""
    ends = [float(item.ge) for item in _constraints(metadata, annotated_types.Ge)]
    ends += [float(item.le) for item in _constraints(metadata, annotated_types.Le)]
    lows = [float(item.gt) for item in _constraints(metadata, annotated_types.Gt)] + ends[:1]
    highs = [float(item.lt) for item in _constraints(metadata, annotated_types.Lt)] + ends[1:]
    low, high = (lows or [-1.0])[0], (highs or [1.5])[0]

    def between(generator: Generator, shapes: Shapes) -> float:
        return round(low + (high - low) * float(generator.uniform(0.1, 0.9)), 2)

    return [*map(_exactly, ends), Option("between", between, lambda value: isinstance(value, float))]


def _tuple(arguments: Sequence[Any], name: str) -> list[Option]:
    """Return the options of a tuple: of whole numbers by whether all are least or equal, else by length."""
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        element = _unique(_of_type(arguments[0], [], name))
        return [_several(element, 1, 1, "1"), _several(element, 2, 3, "more")] if element else []
    leaves = _leaves(arguments)
    if leaves is None:
        parts = [_unique(_of_type(argument, [], name)) for argument in arguments]
        return [
            Option("stated", lambda g, s: [pick(g, part).draw(g, s) for part in parts], lambda v: isinstance(v, tuple))
        ]
    least, count = leaves
    most = max(MOST.get(name, least + 2), least + 1)

    def flat(value: Any) -> list[int]:
        return [leaf for part in value for leaf in flat(part)] if isinstance(value, tuple) else [value]

    def option(label: str, draw: Callable[[Generator], list[int]], holds: Callable[[list[int]], bool]) -> Option:
        return Option(
            label,
            lambda generator, shapes: _filled(arguments, draw(generator)),
            lambda value: isinstance(value, tuple) and len(flat(value)) == count and holds(flat(value)),
        )

    def different(generator: Generator) -> list[int]:
        drawn = [int(part) for part in generator.integers(least, most + 1, count)]
        return drawn if len(set(drawn)) > 1 else [least, *[least + 1] * (count - 1)]

    found = [
        option(str(least), lambda g: [least] * count, lambda leaves: set(leaves) == {least}),
        option(
            "equal" if count > 1 else "more",
            lambda g: [int(g.integers(least + 1, most + 1))] * count,
            lambda leaves: len(set(leaves)) == 1 and leaves[0] > least,
        ),
    ]
    return found if count == 1 else [*found, option("different", different, lambda leaves: len(set(leaves)) > 1)]


def _several(element: Sequence[Option], least: int, most: int, label: str) -> Option:
    return Option(
        label,
        lambda g, shapes: [pick(g, element).draw(g, shapes) for _ in range(int(g.integers(least, most + 1)))],
        lambda value: isinstance(value, tuple) and least <= len(value) and (most > 1 or len(value) == 1),
    )


def _leaves(arguments: Sequence[Any]) -> tuple[int, int] | None:
    """Return the least value of a nested tuple's whole numbers, and how many there are; None for other tuples."""
    least, count = 0, 0
    for argument in arguments:
        metadata: list[Any] = []
        while get_origin(argument) is Annotated:
            argument, *more = get_args(argument)
            metadata += more
        if argument is int:
            least, count = _least(metadata, 0), count + 1
        elif get_origin(argument) is tuple and Ellipsis not in get_args(argument):
            inner = _leaves(get_args(argument))
            if inner is None:
                return None
            least, count = inner[0], count + inner[1]
        else:
            return None
    return least, count


def _filled(arguments: Sequence[Any], leaves: list[int]) -> list[Any]:
    """Arrange whole numbers in the structure of a nested tuple, using them up."""
    rest = list(leaves)

    def fill(parts: Sequence[Any]) -> list[Any]:
        made: list[Any] = []
        for part in parts:
            while get_origin(part) is Annotated:
                part = get_args(part)[0]
            made.append(fill(get_args(part)) if get_origin(part) is tuple else rest.pop(0))
        return made

    return fill(arguments)


def _least(metadata: list[Any], default: int) -> int:
    """Return the least whole number that constraints allow."""
    above = [int(item.gt) + 1 for item in _constraints(metadata, annotated_types.Gt)]
    return max([*above, *(int(item.ge) for item in _constraints(metadata, annotated_types.Ge))], default=default)


def _constraints(metadata: list[Any], kind: type) -> list[Any]:
    parts = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    return [part for part in parts if isinstance(part, kind)]
