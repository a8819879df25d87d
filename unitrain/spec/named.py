"""A word for a mapping: ``adam`` is read as ``{type: adam}``."""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator


def _from_name(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


BY_NAME = BeforeValidator(_from_name, json_schema_input_type=str | dict[str, Any])
