"""One field of a specification with another value: the differences that need no formula of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import numpy as np
from pydantic import ValidationError

from unitrain.spec.base import Spec

# Fields that say what a layer is called or how it starts, and not what it computes.
NAMING = frozenset({"type", "name", "inputs", "activation"})

# What frameworks have for defaults, by field.
USUAL: dict[str, tuple[float, ...]] = {
    "epsilon": (1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12, float(np.finfo(np.float32).eps), 1e-4, 1e-2, 0.1),
    "momentum": (0.99, 0.9, 0.1, 0.01, 0.999, 0.0),
    "slope": (0.3, 0.2, 0.01, 0.25, 0.1, 0.0),
    "alpha": (1.0, 1.6732632423543772, 0.2, 0.3),
    "beta1": (0.9, 0.95, 0.99, 0.0),
    "beta2": (0.999, 0.99, 0.98, 0.95),
    "decay": (0.9, 0.99, 0.95, 0.999),
    "delta": (1.0, 0.5, 2.0, 1.345),
    "weight_decay": (0.0, 0.01, 0.004, 1e-4),
    "l2": (0.0,),
    "lr": (1e-3, 1e-2, 1e-4, 2e-3),
    "label_smoothing": (0.0,),
    "value": (0.0,),
}


def alternatives(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """Give the specifications that differ in one field from ``spec``, the usual defaults of frameworks first.

    Yields
    ------
    text, changed
        What is other, in words, and the changed specification, which may not fit the shapes.
    """
    for field in type(spec).model_fields:
        if field in NAMING or field.endswith("initializer") or field in ("units", "filters", "vocabulary", "width"):
            continue
        value = getattr(spec, field)
        seen: list[Any] = [value]
        for other in _values(spec, field, value):
            if other in seen:
                continue
            seen.append(other)
            changed = changed_field(spec, field, other)
            if changed is not None:
                yield says(field, other, value), changed


def changed_field(spec: Spec, field: str, value: Any) -> Spec | None:
    """Return a specification with one field changed, or None where the value is not allowed."""
    fields = {name: getattr(spec, name) for name in spec.model_fields_set | {"type"} if name in type(spec).model_fields}
    try:
        return type(spec).model_validate({**fields, field: value})
    except ValidationError:
        return None


def says(field: str, other: Any, value: Any) -> str:
    """Word a difference: ``matches with epsilon=0.001, the spec says 1e-05``."""
    return f"matches with {field}={show(other)}, the spec says {show(value)}"


def show(value: Any) -> str:
    """Write a value the way YAML has it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(show, value)) + "]"
    return (
        {None: "none", True: "true", False: "false"}.get(value, str(value))
        if not isinstance(value, int)
        else (str(value).lower() if isinstance(value, bool) else str(value))
    )


def numeric_fields(spec: Spec) -> list[str]:
    """Return the fields that hold one number that is no count."""
    return [
        field for field in type(spec).model_fields if isinstance(getattr(spec, field), float) and field not in NAMING
    ]


def _values(spec: Spec, field: str, value: Any) -> Iterator[Any]:
    annotation = type(spec).model_fields[field].annotation
    literals = [item for item in _literals(annotation) if item != value]
    yield from literals
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, float):
        yield from USUAL.get(field, ())
        yield 1.0 - value
        yield from (2.0 * value, 0.5 * value)
    elif isinstance(value, int):
        yield from (1, value - 1, value + 1, -1, 0, 2)
        yield from (4, 8, 16, 32, 64) if field == "groups" else ()
    elif isinstance(value, tuple) and value and all(isinstance(item, int) for item in value):
        yield (1,) * len(value)
        yield value[::-1]
        if field == "axes":
            yield tuple(int(item) for item in np.argsort(value))
    elif isinstance(value, tuple) and value and all(isinstance(item, tuple) for item in value):
        yield tuple(item[::-1] for item in value)
        yield value[::-1]
    elif value is None:
        yield from USUAL.get(field, ())
    if value is not None and type(None) in get_args(annotation):
        yield None


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [item for part in get_args(annotation) for item in _literals(part)]
