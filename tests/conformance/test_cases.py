"""The list of cases is whole: a new layer or option without a case fails here."""

from __future__ import annotations

import typing
from typing import Any, Literal

import pytest
from conformance.cases import ALL_CASES

from unitrain.spec.layers import LAYER_TYPES

# What every layer has, and what only weights that are drawn anyway depend on.
UNTESTED = {"type", "name", "inputs", "activation"}
OPTIONS = [
    (kind, field)
    for kind, layer in LAYER_TYPES.items()
    for field in layer.model_fields
    if field not in UNTESTED and not field.endswith("_initializer")
]


def named_values(annotation: Any) -> set[Any]:
    """Return the values that a type lists one by one: those of its literals, and both booleans."""
    if annotation is bool:
        return {True, False}
    if typing.get_origin(annotation) is Literal:
        return set(typing.get_args(annotation))
    return set().union(*(named_values(part) for part in typing.get_args(annotation)))


def is_named(annotation: Any) -> bool:
    """Return whether a type has no other values than those it lists."""
    return annotation is bool or typing.get_origin(annotation) is Literal


def test_every_layer_has_a_case() -> None:
    assert {case.layer.type for case in ALL_CASES} == LAYER_TYPES.keys()


def test_labels_are_unique() -> None:
    assert len({case.label for case in ALL_CASES}) == len(ALL_CASES)


# Names of other layers say nothing in a model of one layer.
NAMES = {"tied_projection": "embedding", "gather": "indices"}


@pytest.mark.parametrize(("kind", "field"), [option for option in OPTIONS if NAMES.get(option[0]) != option[1]])
def test_every_option_takes_all_its_values(kind: str, field: str) -> None:
    annotation = LAYER_TYPES[kind].model_fields[field].annotation
    seen = {getattr(case.layer, field) for case in ALL_CASES if case.layer.type == kind}
    assert named_values(annotation) <= seen
    assert is_named(annotation) or len(seen - named_values(annotation)) >= (1 if named_values(annotation) else 2)


@pytest.mark.parametrize("kind", [kind for kind, layer in LAYER_TYPES.items() if "dilation" in layer.model_fields])
def test_windows_combine_strides_dilation_and_padding(kind: str) -> None:
    layers: list[Any] = [case.layer for case in ALL_CASES if case.layer.type == kind]
    assert any(max(layer.strides) > 1 and max(layer.dilation) > 1 for layer in layers)
    assert any(max(layer.strides) > 1 and layer.padding == "same" for layer in layers)
    assert any(not isinstance(layer.padding, str) and any(a != b for a, b in layer.padding) for layer in layers)
