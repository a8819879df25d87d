"""A choice among specifications by their ``type``, of which only those that are used are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, SchemaValidator, core_schema

from unitrain.spec.base import Spec


class Choice:
    """What pydantic's discriminated union of all ``kinds`` means, without building a validator for each of them.

    A recipe uses a few of many layers, sources and optimizers, and building all of them takes longer than reading it.
    To be put into ``Annotated``.

    Parameters
    ----------
    kinds
        ``type`` to specification; by default those of the union that is annotated.
    """

    def __init__(self, kinds: Mapping[str, type[Spec]] | None = None) -> None:
        self._kinds = kinds or {}
        self._validators: dict[str, SchemaValidator] = {}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate by the specification that ``type`` names."""
        self._kinds = self._kinds or {kind.model_fields["type"].default: kind for kind in get_args(source)}
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe all kinds, and the words that a validator before this one reads."""
        kinds = _union(self._kinds)
        return handler({**schema, "schema": kinds} if schema["type"] == "function-before" else kinds)

    def _validate(self, value: Any) -> Spec:
        if isinstance(value, Spec) and isinstance(value, tuple(self._kinds.values())):
            return value
        if not isinstance(value, Mapping):
            raise PydanticKnownError("model_attributes_type")
        if "type" not in value:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": "'type'"})
        kind = value["type"]
        if not isinstance(kind, str) or kind not in self._kinds:
            expected = ", ".join(f"'{name}'" for name in self._kinds)
            raise PydanticKnownError(
                "union_tag_invalid", {"discriminator": "'type'", "tag": str(kind), "expected_tags": expected}
            )
        if kind not in self._validators:
            # A union of one, so that places of errors are told as those of a union.
            self._validators[kind] = SchemaValidator(_union({kind: self._kinds[kind]}))
        made: Spec = self._validators[kind].validate_python(value)
        return made


def _union(kinds: Mapping[str, type[Spec]]) -> CoreSchema:
    choices: dict[Any, CoreSchema] = {}
    for name, kind in kinds.items():
        kind.model_rebuild()
        choices[name] = kind.__pydantic_core_schema__
    return core_schema.tagged_union_schema(choices, discriminator="type")
