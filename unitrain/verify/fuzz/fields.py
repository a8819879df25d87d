"""Draws the fields of a specification from their types, with hints where a type says too little."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import numpy as np
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Draw = Callable[[np.random.Generator], Any]

# Draws for fields whose type allows more than a small model can bear, by name.
HINTS: Mapping[str, Draw] = {
    "units": lambda g: int(g.integers(1, 7)),
    "filters": lambda g: int(g.integers(1, 7)),
    "width": lambda g: int(g.integers(1, 5)),
    "multiplier": lambda g: int(g.integers(1, 4)),
    "vocabulary": lambda g: int(g.integers(1, 8)),
    "groups": lambda g: int(g.choice([1, 2, 3, 4])),
    "repeat": lambda g: int(g.integers(1, 4)),
    "epsilon": lambda g: float(g.choice([1e-2, 1e-3, 1e-4, 1e-5, 1e-6])),
    "momentum": lambda g: float(g.choice([0.0, 0.1, 0.5, 0.9, 0.99])),
    "rate": lambda g: float(g.choice([0.0, 0.1, 0.5, 0.8])),
    "slope": lambda g: float(g.choice([0.0, 0.01, 0.3, 1.0])),
    "alpha": lambda g: float(g.choice([0.3, 1.0, 1.7])),
    "value": lambda g: float(g.choice([-1.5, 0.0, 2.0])),
    "axis": lambda g: int(g.integers(-3, 3)),
    "axes": lambda g: int(g.integers(1, 4)),
    "lr": lambda g: float(g.choice([1e-3, 1e-2, 3e-2])),
    "weight_decay": lambda g: float(g.choice([0.0, 1e-2])),
    "l2": lambda g: float(g.choice([0.0, 1e-3])),
    "clip_norm": lambda g: [None, 0.1, 1.0][int(g.integers(3))],
    "clip_value": lambda g: [None, 0.01, 0.1][int(g.integers(3))],
    "ema": lambda g: [None, 0.9][int(g.integers(2))],
    "beta1": lambda g: float(g.choice([0.8, 0.9])),
    "beta2": lambda g: float(g.choice([0.99, 0.999])),
    "decay": lambda g: float(g.choice([0.9, 0.99])),
    "delta": lambda g: float(g.choice([0.5, 1.0, 2.0])),
    "label_smoothing": lambda g: float(g.choice([0.0, 0.1, 0.3])),
}
# Fields that a drawn specification leaves at their defaults: names, and what depends on the data.
LEFT = frozenset({"name", "inputs", "type", "class_weights", "ignore_index"})


def draw_fields(spec: type[BaseModel], generator: np.random.Generator, *, often: float = 0.6) -> dict[str, Any]:
    """Draw values for the fields of a specification, as they would be read from YAML.

    Required fields always have one, others with the chance ``often``.
    """
    drawn: dict[str, Any] = {}
    for name, field in spec.model_fields.items():
        if name in LEFT:
            continue
        if not field.is_required() and generator.random() > often:
            continue
        value = draw_value(name, field, generator)
        if value is not None or not field.is_required():
            drawn[name] = value
    if "type" in spec.model_fields:
        drawn["type"] = spec.model_fields["type"].default
    return drawn


def draw_value(name: str, field: FieldInfo, generator: np.random.Generator) -> Any:
    """Draw one field: by its hint, else by its type."""
    annotation = field.annotation
    if name in HINTS and not _is_literal(annotation) and not (name == "axes" and _is_tuple(annotation)):
        return HINTS[name](generator)
    return _draw(annotation, list(field.metadata), generator)


def _draw(annotation: Any, metadata: list[Any], generator: np.random.Generator) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _draw(arguments[0], [*arguments[1:], *metadata], generator)
    if origin is Literal:
        return arguments[int(generator.integers(len(arguments)))]
    if origin in (Union, types.UnionType):
        return _draw(arguments[int(generator.integers(len(arguments)))], metadata, generator)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return [_draw(arguments[0], [], generator) for _ in range(int(generator.integers(1, 4)))]
        return [_draw(argument, [], generator) for argument in arguments]
    if annotation is bool:
        return bool(generator.integers(2))
    if annotation is int:
        low = _bound(metadata, 0)
        return int(generator.integers(low, low + 3))
    if annotation is float:
        low, high = _bound(metadata, 0.0), _upper(metadata, 1.0)
        return float(np.round(generator.uniform(low, high), 3)) or 0.5
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return draw_fields(annotation, generator)
    return None


def _bound(metadata: list[Any], default: Any) -> Any:
    for item in _constraints(metadata):
        if isinstance(item, annotated_types.Gt):
            return item.gt + (1 if isinstance(default, int) else 0)  # type: ignore[operator]  # a number here
        if isinstance(item, annotated_types.Ge):
            return item.ge
    return default


def _upper(metadata: list[Any], default: float) -> Any:
    for item in _constraints(metadata):
        if isinstance(item, annotated_types.Lt):
            return 0.95 * float(item.lt)  # type: ignore[arg-type]  # a number here
    return default


def _constraints(metadata: list[Any]) -> list[Any]:
    return [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _is_literal(annotation: Any) -> bool:
    return get_origin(annotation) is Literal


def _is_tuple(annotation: Any) -> bool:
    return get_origin(annotation) is tuple
