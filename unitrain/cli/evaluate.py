"""`unitrain evaluate`: measure a trained run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

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
    each_series: Annotated[
        bool, typer.Option("--each-series", help="Measure each of many series too, beside the seasonal naive forecast.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a trained run on its test data, or on a file, with the stored preprocessing.

    Examples:

      unitrain evaluate runs/digits-cnn

      unitrain evaluate runs/churn --data new-customers.csv --backend torch
    """
    from unitrain.cli.run_lines import show_values
    from unitrain.train.inference import TrainedRun
    from unitrain.train.run_folder import json_values

    trained = TrainedRun.open(run, backend=backend, device=device)
    samples, values = trained.evaluate(part=part, data=data, each_series=each_series)
    if as_json:
        typer.echo(json.dumps(json_values({"samples": samples, "values": values}), allow_nan=False))
        return
    name = str(data) if data is not None else part
    typer.echo(f"{name}: {samples:,} samples on {trained.place.backend.name} ({trained.place.device})")
    typer.echo(show_values(values))
    if "seasonal_naive" in values:
        typer.echo(f"seasonal naive: {show_values(values['seasonal_naive'])}")
    if each_series:
        _print_series(values["series"])
    for label, value in values.items():
        if isinstance(value, list):
            typer.echo(f"{label}:")
            for row in value if isinstance(value[0], list) else [value]:
                typer.echo("  " + " ".join(f"{cell:>6g}" for cell in row))


def _print_series(series: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a row for each series, and one for its seasonal naive forecast."""
    from unitrain.report.table import print_table

    labels = [label for label, value in next(iter(series.values())).items() if isinstance(value, float)]
    rows = []
    for name, found in series.items():
        rows.append([name, f"{found['samples']:,}", "model", *(f"{found[label]:.4g}" for label in labels)])
        if "seasonal_naive" in found:
            naive = found["seasonal_naive"]
            rows.append(["", "", "seasonal naive", *(f"{naive[label]:.4g}" for label in labels)])
    print_table(["series", "samples", "forecast", *labels], rows, right=["samples", *labels], fixed=["forecast"])
