"""`unitrain check`: validate models and recipes without training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from unitrain.graph.graph import Graph
from unitrain.spec.documents import is_recipe
from unitrain.spec.errors import InputError
from unitrain.spec.layers.base import show_shape
from unitrain.spec.yaml import Document, read_yaml


@dataclass(frozen=True)
class Finding:
    """What a sound file holds."""

    kind: str
    name: str
    graph: Graph
    details: dict[str, str]

    def to_plain(self) -> dict[str, Any]:
        """Return the finding as JSON values; shapes leave out the batch."""
        graph = self.graph
        return {
            "kind": self.kind,
            "name": self.name,
            "layers": len(graph.nodes),
            "parameters": graph.parameter_count(trainable=True),
            "statistics": graph.parameter_count(trainable=False),
            "macs": graph.macs,
            "inputs": {name: list(given.shape) for name, given in graph.inputs.items()},
            "outputs": {name: list(graph.shape(node)) for name, node in graph.outputs.items()},
            **self.details,
        }

    def to_text(self) -> str:
        """Return the finding as a few lines."""
        graph = self.graph
        inputs = ", ".join(f"{name} {show_shape(given.shape)}" for name, given in graph.inputs.items())
        outputs = ", ".join(f"{name} {show_shape(graph.shape(node))}" for name, node in graph.outputs.items())
        lines = {
            "layers": f"{len(graph.nodes):,}, with {graph.parameter_count(trainable=True):,} parameters",
            "inputs": inputs,
            "outputs": outputs,
            **self.details,
        }
        rows = (f"  {label + ':':<11}{text}" for label, text in lines.items())
        return "\n".join([f"{self.kind} '{self.name}'", *rows])


def check(
    files: Annotated[list[Path], typer.Argument(help="Models and recipes.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, one object a file.")] = False,
) -> None:
    """Check models and recipes: fields, names, shapes. All files are checked; exit code 2 if any is wrong.

    A file with `layers` is a model, a file with `model` and `data` a recipe. Data is not read.

    Examples:

      unitrain check models/resnet20.yaml

      unitrain check models/*.yaml recipes/*.yaml --json
    """
    results: list[dict[str, Any]] = []
    wrong = 0
    for file in files:
        try:
            finding = inspect_file(file)
        except InputError as error:
            wrong += 1
            results.append({"file": str(file), "ok": False, "problems": [asdict(p) for p in error.problems]})
            if not as_json:
                typer.echo(str(error), err=True)
        else:
            results.append({"file": str(file), "ok": True, **finding.to_plain()})
            if not as_json:
                typer.echo(f"{file}: {finding.to_text()}")
    if as_json:
        typer.echo(json.dumps(results, indent=2, ensure_ascii=False))
    elif wrong and len(files) > 1:
        typer.echo(f"{wrong} of {len(files)} files are wrong", err=True)
    if wrong:
        raise typer.Exit(2)


def inspect_file(file: Path) -> Finding:
    """Check one file. Raises `InputError`."""
    document = read_yaml(file)
    return _recipe(file) if is_recipe(document) else _model(document)


def _model(document: Document) -> Finding:
    from unitrain.graph.resolve import resolve
    from unitrain.spec.base import validate
    from unitrain.spec.model import ModelSpec

    model = validate(ModelSpec, document)
    return Finding("model", model.name, resolve(model, document=document), {})


def _recipe(file: Path) -> Finding:
    from unitrain.train.recipe import load_recipe

    loaded = load_recipe(file)
    recipe = loaded.recipe
    details = {
        "model": loaded.graph.name,
        "data": recipe.data.source.type,
        "loss": ", ".join(f"{part.loss.type} of {output}" for output, part in loaded.losses.items()),
        "optimizer": recipe.optimizer.type,
    }
    return Finding("recipe", recipe.name, loaded.graph, details)
