"""JSON Schema (draft 2020-12) for models and recipes, so that editors complete and check them while one types.

pydantic writes most of it. Added here: what only our validators know (a word in place of a mapping, references
to arguments in layers), and descriptions from the docstrings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from unitrain.spec.base import Spec
from unitrain.spec.expressions import REFERENCE
from unitrain.spec.model import STEPS, InputSpec, ModelSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def model_schema() -> Schema:
    """Return the schema of a model file."""
    return _schema(ModelSpec)


def recipe_schema() -> Schema:
    """Return the schema of a recipe file."""
    from unitrain.spec.recipe import Recipe

    return _schema(Recipe)


def _schema(spec: type[Spec]) -> Schema:
    schema = spec.model_json_schema(schema_generator=_Generator)
    _admit_references(schema["$defs"])
    return {"$schema": DIALECT, **schema}


class _Generator(GenerateJsonSchema):
    """pydantic's generator with our words, our descriptions, and no titles that repeat field names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        """Let a word stand for a choice by ``type``, besides the choice itself."""
        inner = schema["schema"]
        if inner["type"] != "tagged-union":
            return super().function_before_schema(schema)
        choice = self.generate_inner(inner)
        declared = self.generate_inner(schema["json_schema_input_schema"])
        words = _declared_words(declared) or self._words(choice)
        return {"anyOf": [{"enum": words}, choice]}

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Describe each choice once, as ``anyOf``: no two agree on ``type``."""
        result = super().tagged_union_schema(schema)
        choices = result.pop("oneOf", None)
        result.pop("discriminator", None)
        return {"anyOf": choices, **result} if choices else result

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Describe a specification and its fields in the words of their docstrings."""
        result = super().model_schema(schema)
        if "properties" in result:
            _describe(result, schema["cls"])
        return result

    def _words(self, choice: JsonSchemaValue) -> list[str]:
        """Return the types that need no field but ``type``: they may be written as a word."""
        words = []
        for option in choice["anyOf"]:
            definition = self.get_schema_from_definitions(option["$ref"]) or {}
            if definition.get("required") == ["type"]:
                words.append(definition["properties"]["type"]["const"])
        return words


def _declared_words(declared: JsonSchemaValue) -> list[str]:
    """Return the words that a validator itself declares that it reads."""
    options = declared.get("anyOf", [declared])
    return [word for option in options for word in option.get("enum", [])]


def _describe(schema: JsonSchemaValue, spec: type[BaseModel]) -> None:
    """Set descriptions from docstrings; the tag of a choice is required although it has a default."""
    fields: dict[str, str] = {}
    for parent in reversed(spec.__mro__):
        if issubclass(parent, BaseModel) and parent.__doc__ and parent is not BaseModel:
            fields.update(parse_parameters(parent.__doc__))
    schema.pop("description", None)
    if spec.__doc__:
        schema["description"] = _plain_text(spec.__doc__.partition("\n    Parameters\n")[0])
    for name, field in schema["properties"].items():
        if name in fields:
            field["description"] = fields[name]
    kind = schema["properties"].get("type", {})
    if "const" in kind:
        kind.pop("default", None)
        schema["required"] = ["type", *schema.get("required", [])]


def parse_parameters(docstring: str) -> dict[str, str]:
    """Read the ``Parameters`` section of a NumPy-style docstring: name -> description."""
    lines = iter(inspect.cleandoc(docstring).splitlines())
    for line in lines:
        if line == "Parameters" and set(next(lines, "")) == {"-"}:
            return {name: text for names, text in _entries(lines) for name in names}
    return {}


def _entries(lines: Iterator[str]) -> Iterator[tuple[list[str], str]]:
    names: list[str] = []
    text: list[str] = []
    for line in lines:
        if set(line) == {"-"}:
            # The rule under the head of the next section: that head is not an entry.
            return
        if line and not line.startswith(" "):
            if names:
                yield names, _plain_text("\n".join(text))
            names, text = [name.strip() for name in line.partition(" : ")[0].split(",")], []
        else:
            text.append(line)
    if names:
        yield names, _plain_text("\n".join(text))


def _plain_text(text: str) -> str:
    """Unwrap paragraphs and drop the markup of docstrings."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).replace("``", "`").strip()


def _admit_references(definitions: dict[str, Schema]) -> None:
    """Let every value inside a layer or a model's input be ``$name`` or ``${...}``, as templates are written."""
    pattern = "^" + REFERENCE.pattern.removesuffix(r"\Z") + "$"
    written: tuple[type[Spec], ...] = (*STEPS, InputSpec)
    templates = {step.__name__ for step in written} & definitions.keys()
    reached: set[str] = set()
    waiting = sorted(templates)
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        waiting += [used.rpartition("/")[2] for used in _references(definitions[name])]
    for name in sorted(reached):
        _admit_inside(definitions[name])
    definitions["Reference"] = {
        "type": "string",
        "pattern": pattern,
        "description": "An argument, `$name`, or arithmetic on arguments and numbers, `${2 * name}`.",
    }


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _admit_inside(schema: Schema) -> None:
    """Wrap the schemas of fields and items, but not ``type``, which decides what a layer is."""
    for name, field in schema.get("properties", {}).items():
        if name != "type":
            schema["properties"][name] = _or_reference(field)
    for place in ("items", "additionalProperties"):
        if isinstance(schema.get(place), dict):
            schema[place] = _or_reference(schema[place])
    if "prefixItems" in schema:
        schema["prefixItems"] = [_or_reference(item) for item in schema["prefixItems"]]
    for option in schema.get("anyOf", []):
        _admit_inside(option)


def _or_reference(schema: Schema) -> Schema:
    _admit_inside(schema)
    described: Schema = {key: schema.pop(key) for key in ("description", "default") if key in schema}
    reference = {"$ref": "#/$defs/Reference"}
    if schema.keys() == {"anyOf"}:
        return {"anyOf": [*schema["anyOf"], reference], **described}
    return {"anyOf": [schema, reference], **described}
