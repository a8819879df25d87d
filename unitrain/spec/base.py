"""The base of every specification, and the translation of pydantic's findings into our errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from unitrain.spec.errors import FieldPath, InputError, Problem, did_you_mean
from unitrain.spec.yaml import Document, read_yaml, write_yaml


class Spec(BaseModel):
    """A part of a specification: immutable, with no unknown fields, the same from YAML and from Python."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, data: Any) -> Any:
        """Say which fields exist, which pydantic's own message does not."""
        if isinstance(data, Mapping):
            for key in data:
                check_field_name(str(key), cls)
        return data

    def to_plain(self) -> dict[str, Any]:
        """Return the specification as plain values, leaving out what equals its default (``type`` stays)."""
        return {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if name == "type"
            or field.is_required()
            or getattr(self, name) != field.get_default(call_default_factory=True)
        }

    def to_yaml(self) -> str:
        """Write the specification as YAML that loads to an equal specification."""
        return write_yaml(self.to_plain())


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_plain()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


SpecType = TypeVar("SpecType", bound=BaseModel)


def check_field_name(key: str, spec: type[BaseModel]) -> None:
    """Raise pydantic's custom error when ``spec`` has no field ``key``."""
    if key not in spec.model_fields:
        raise PydanticCustomError(
            "unknown_field",
            "unknown field '{found}'",
            {"found": key, "choices": list(spec.model_fields)},
        )


def load_spec(spec: type[SpecType], path: str | Path) -> SpecType:
    """Read and validate a YAML file. Raises `InputError` with file, line and field."""
    return validate(spec, read_yaml(path))


def validate(spec: type[SpecType], document: Document) -> SpecType:
    """Validate parsed YAML as ``spec``. Raises `InputError` with file, line and field."""
    if not isinstance(document.data, dict):
        raise InputError(
            f"a {spec.__name__} is a mapping of fields",
            file=document.file,
            line=document.line(()),
            found=type(document.data).__name__,
            allowed=", ".join(spec.model_fields),
        )
    try:
        return spec.model_validate(document.data)
    except ValidationError as error:
        raise InputError.from_problems(problems_of(error, document)) from None


def at_document(error: InputError, document: Document, prefix: FieldPath = ()) -> InputError:
    """Give an error that knows its field the file and line of that field."""
    return InputError.from_problems(
        Problem(
            problem.message,
            document.file,
            document.line((*prefix, *problem.field)),
            (*prefix, *problem.field),
            problem.found,
            problem.allowed,
            problem.hint,
        )
        for problem in error.problems
    )


# What pydantic says of Python's types, in the words of YAML.
_WORDS = {
    "a valid dictionary or object to extract fields from": "a mapping of fields",
    "a valid dictionary": "a mapping",
    "a valid tuple": "a list",
    "a valid list": "a list",
    "a valid string": "a word",
    "a valid boolean": "true or false",
    "a valid integer": "a whole number",
    "a valid number": "a number",
}


def problems_of(error: ValidationError, document: Document) -> list[Problem]:
    """Turn what pydantic found into problems with file, line and field, one for each field.

    Of a value that may be one of several things pydantic says why it is none of them, and of a list with wrong
    items that it is too short, for it leaves them out.
    """
    problems: dict[FieldPath, Problem] = {}
    for details in error.errors():
        problem = _translate(details, document)
        known = problems.get(problem.field)
        problems[problem.field] = problem if known is None else _either(known, problem)
    enclosing = {field[:length] for field in problems for length in range(len(field))}
    return [problem for field, problem in problems.items() if field not in enclosing]


def _either(first: Problem, second: Problem) -> Problem:
    """One problem for a value that is neither of two things."""
    allowed = dict.fromkeys(text for text in (first.allowed, second.allowed) if text is not None)
    return replace(first, allowed=" or ".join(allowed) or None, hint=first.hint or second.hint)


def _translate(details: ErrorDetails, document: Document) -> Problem:
    """Turn one pydantic finding into a problem with file, line, field, found, allowed and hint."""
    kind = details["type"]
    context = details.get("ctx", {})
    path = _data_path(details["loc"], document.data, keep_last=kind == "missing")
    found: str | None = _show(details["input"])
    allowed: str | None = None
    hint: str | None = None
    message = details["msg"][:1].lower() + details["msg"][1:]
    if "choices" in context:
        found = context["found"]
        path = (*path, found) if kind == "unknown_field" else path
        allowed = ", ".join(context["choices"])
        hint = did_you_mean(context["found"], context["choices"])
    elif kind == "missing":
        message, found = "this field is required", None
    elif kind == "union_tag_invalid":
        key = str(context["discriminator"]).strip("'")
        choices = [choice.strip(" '") for choice in str(context["expected_tags"]).split(",")]
        message = f"unknown {key} '{context['tag']}'"
        path = (*path, key)
        found, allowed = str(context["tag"]), ", ".join(choices)
        hint = did_you_mean(str(context["tag"]), choices)
    elif kind == "union_tag_not_found":
        message = f"the field {context['discriminator']} is required here"
    elif kind == "literal_error":
        allowed = str(context["expected"]).replace("'", "")
        message = "not one of the allowed values"
        hint = did_you_mean(str(details["input"]), allowed.replace(" or ", ", ").split(", "))
    elif kind == "value_error":
        message = str(context["error"])
    elif message.startswith("input should be "):
        allowed = message.removeprefix("input should be ").partition(", ")[0]
        allowed = _WORDS.get(allowed, allowed)
        message = "wrong value"
    elif kind == "string_pattern_mismatch":
        message, allowed = "wrong spelling", str(context["pattern"])
    elif kind in ("too_long", "too_short"):
        message, found = "wrong number of values", str(context["actual_length"])
        allowed = f"{context['max_length']} at most" if kind == "too_long" else f"{context['min_length']} at least"
    return Problem(message, document.file, document.line(path), path, found, allowed, hint)


def _data_path(location: Sequence[str | int], data: Any, keep_last: bool) -> FieldPath:
    """Drop from pydantic's location what is not in the data: union tags and validator names."""
    path: list[str | int] = []
    tagged = False
    for index, part in enumerate(location):
        # pydantic names the choice of a union before the field: once, and a field may be called the same.
        is_tag = isinstance(data, dict) and data.get("type") == part and not tagged
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        last = index == len(location) - 1
        if is_tag and not (last and keep_last):
            tagged = True
        elif inside:
            data, tagged = data[part], False
            path.append(part)
        elif keep_last and last:
            path.append(part)
    return tuple(path)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
