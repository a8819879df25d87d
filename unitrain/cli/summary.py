"""`unitrain summary`: the layers of a model, their shapes, parameters and cost."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.graph.summary import Summary, SummaryRow, summarise
from unitrain.spec.base import validate
from unitrain.spec.documents import is_recipe, read_arguments
from unitrain.spec.layers.base import Shape, show_shape
from unitrain.spec.model import ModelSpec
from unitrain.spec.yaml import read_yaml


def summary(
    model: Annotated[Path, typer.Argument(help="A model, or a recipe with one.", show_default=False)],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="ARGUMENT=VALUE", help="Give an argument of the model: classes=7."),
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, metavar="N", help="Show shapes and cost for N samples.")] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Show blocks nested deeper than N as one row.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show a model's layers with output shape, parameters and multiply-accumulates (MACs).

    Examples:

      unitrain summary models/cnn.yaml

      unitrain summary models/resnet20.yaml --set classes=100 --depth 1

      unitrain summary models/lenet5.yaml --batch 64 --json
    """
    result = summarise(_graph(model, set_ or []), depth)
    if as_json:
        typer.echo(json.dumps(_to_plain(result, batch), indent=2))
    else:
        _print(result, batch)


def _graph(file: Path, settings: list[str]) -> Graph:
    document = read_yaml(file)
    if is_recipe(document):
        from unitrain.train.recipe import load_recipe

        return load_recipe(file, [f"model.{setting}" for setting in settings]).graph
    return resolve(validate(ModelSpec, document), read_arguments(settings), document)


def _to_plain(result: Summary, batch: int | None) -> dict[str, Any]:
    """Return JSON values. Shapes begin with the batch, null where it is not set; MACs are for the batch."""
    plain = asdict(result)
    for part in ("inputs", "outputs"):
        plain[part] = {name: [batch, *shape] for name, shape in plain[part].items()}
    for row in plain["rows"]:
        row["output_shape"] = [batch, *row["output_shape"]]
        row["macs"] *= batch or 1
    plain["macs"] *= batch or 1
    return {**plain, "weight_bytes": result.weight_bytes()}


def _print(result: Summary, batch: int | None) -> None:
    from unitrain.report.table import print_table

    many = batch or 1

    def shape(value: Shape) -> str:
        return show_shape(value) if batch is None else str([batch, *value])

    def cells(row: SummaryRow) -> list[str]:
        kind = row.type if row.layers == 1 else f"{row.layers} layers"
        lines = [f"{row.name} ({kind})"]
        if not row.sequential:
            lines += [f"  reads {name}" for name in row.inputs]
        lines += [f"  weights of {name}" for name in row.shared_with]
        counts = f"{row.parameters + row.statistics:,}"
        return ["\n".join(lines), shape(row.output_shape), counts, f"{row.macs * many:,}"]

    sources = ", ".join(f"{name} {shape(given)}" for name, given in result.inputs.items())
    typer.echo(f"{result.name}: {sources}\n")
    macs = "MACs" if batch is None else f"MACs (batch of {batch:,})"
    total = f"{result.parameters + result.statistics:,}"
    print_table(
        ["layer", "output shape", "parameters", macs],
        [cells(row) for row in result.rows],
        right=["parameters", macs],
        foot=["total", "", total, f"{result.macs * many:,}"],
    )
    outputs = ", ".join(f"{name} {shape(given)}" for name, given in result.outputs.items())
    typer.echo(
        f"\noutputs:            {outputs}\n"
        f"parameters:         {result.parameters:,} trainable, {result.statistics:,} running statistics\n"
        f"weights as float32: {show_bytes(result.weight_bytes())}"
    )


def show_bytes(count: int) -> str:
    """Write a size in bytes and, where that helps, in MiB."""
    return f"{count:,} bytes" + (f" ({count / 2**20:,.1f} MiB)" if count >= 2**20 else "")
