"""What a YAML file holds, a model or a recipe, and the arguments of a model that are typed beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unitrain.spec.errors import InputError
from unitrain.spec.yaml import Document, parse_yaml


def is_recipe(document: Document) -> bool:
    """Tell a recipe from a model by its fields. Raises `InputError` when it is neither."""
    fields = document.data if isinstance(document.data, dict) else {}
    if fields.keys() & {"model", "data"}:
        return True
    if fields.keys() & {"layers", "inputs", "blocks"}:
        return False
    raise InputError(
        "neither a model nor a recipe",
        file=document.file,
        line=document.line(()),
        found=f"fields {', '.join(map(str, fields))}" if fields else type(document.data).__name__,
        allowed="a model has `inputs` and `layers`; a recipe has `model` and `data`",
    )


def read_arguments(settings: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` settings; values are YAML. Raises `InputError`."""
    arguments = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not (name.strip() and equals and text.strip()):
            raise InputError("an argument is given as name=value", file="--set", found=setting)
        arguments[name.strip()] = parse_yaml(text, file=f"--set {name}").data
    return arguments
