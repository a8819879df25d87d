"""`unitrain evaluate`: measure a trained run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    part: Annotated[
        str, typer.Option(help="The part of the recipe's data to measure: train, validation or test.")
    ] = "test",
    data: Annotated[Path | None, typer.Option(help="Measure this file or folder instead, targets included.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="numpy, keras, torch or onnx; by default the one it was trained on.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a trained run on its test data, or on a file, with the stored preprocessing.

    Examples:

      unitrain evaluate runs/digits-cnn-numpy-20260101-120000

      unitrain evaluate runs/churn --data new-customers.csv --backend torch
    """
    from unitrain.cli.run_lines import show_values
    from unitrain.train.inference import TrainedRun

    trained = TrainedRun.open(run, backend=backend, device=device)
    samples, values = trained.evaluate(part=part, data=data)
    if as_json:
        typer.echo(json.dumps({"samples": samples, "values": values}))
        return
    name = str(data) if data is not None else part
    typer.echo(f"{name}: {samples:,} samples on {trained.place.backend.name} ({trained.place.device})")
    typer.echo(show_values(values))
    if "seasonal_naive" in values:
        typer.echo(f"seasonal naive: {show_values(values['seasonal_naive'])}")
    for label, value in values.items():
        if isinstance(value, list):
            typer.echo(f"{label}:")
            for row in value if isinstance(value[0], list) else [value]:
                typer.echo("  " + " ".join(f"{cell:>6g}" for cell in row))
