"""Layers and inputs that were written with arguments, as ``$name`` or arithmetic, once the arguments are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from unitrain.spec.base import problems_of
from unitrain.spec.errors import FieldPath, InputError, Problem
from unitrain.spec.expressions import substitute
from unitrain.spec.layers.base import LayerSpec
from unitrain.spec.model import InputSpec, Template, layer_from_plain
from unitrain.spec.yaml import Document


def layer_with(arguments: Mapping[str, Any], layer: LayerSpec | Template, path: FieldPath) -> LayerSpec:
    """Return a layer with its arguments worked out. Raises `InputError` with a field below ``path``."""
    if isinstance(layer, LayerSpec):
        return layer
    fields = _substituted(layer.fields, arguments, path)
    try:
        return layer_from_plain(fields)
    except ValidationError as error:
        raise _below(path, problems_of(error, Document("", fields))) from None


def input_with(arguments: Mapping[str, Any], given: InputSpec | Template, path: FieldPath) -> InputSpec:
    """Return an input with its arguments worked out. Raises `InputError` with a field below ``path``."""
    if isinstance(given, InputSpec):
        return given
    fields = _substituted(given.fields, arguments, path)
    try:
        return InputSpec.model_validate(fields)
    except ValidationError as error:
        raise _below(path, problems_of(error, Document("", fields))) from None


def _substituted(fields: Any, arguments: Mapping[str, Any], path: FieldPath) -> Any:
    try:
        return substitute(fields, arguments)
    except InputError as error:
        raise _below(path, error.problems) from None


def _below(path: FieldPath, problems: Iterable[Problem]) -> InputError:
    """Put ``path`` before the field of each problem; file and line are found by the whole field."""
    return InputError.from_problems(
        replace(problem, file=None, line=None, field=(*path, *problem.field)) for problem in problems
    )
