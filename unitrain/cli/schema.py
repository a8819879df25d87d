"""`unitrain schema`: JSON Schema for editors."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    """What is described."""

    MODEL = "model"
    RECIPE = "recipe"


def schema(
    kind: Annotated[Kind, typer.Argument(help="What the files are.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Write to this file, not to the screen.")] = None,
) -> None:
    """Write the JSON Schema (draft 2020-12) of models or recipes.

    Editors use it to complete fields, show their meaning and mark mistakes.

    Examples:

      unitrain schema model --out model.schema.json

      unitrain schema recipe --out recipe.schema.json

    Then begin a file with: # yaml-language-server: $schema=../model.schema.json
    """
    from unitrain.spec.schema import model_schema, recipe_schema

    text = json.dumps(model_schema() if kind is Kind.MODEL else recipe_schema(), indent=2, ensure_ascii=False)
    if out is None:
        typer.echo(text)
        return
    out.write_text(text + "\n", encoding="utf-8")
    typer.echo(f"wrote {out}")
