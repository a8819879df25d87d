"""`unitrain predict`: apply a trained run to new data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    data: Annotated[Path, typer.Argument(help="CSV, TSV, Parquet, npz, idx, a text, an image or a folder.")],
    out: Annotated[Path, typer.Option(help="Where to write: .csv, .parquet or .npz.")],
    backend: Annotated[
        str | None, typer.Option(help="numpy, keras, torch or onnx; by default the one it was trained on.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Predict a file with the stored preprocessing: classes and probabilities, or numbers.

    Examples:

      unitrain predict runs/churn new-customers.csv --out predictions.csv

      unitrain predict runs/digits-cnn digits.npz --out predictions.npz --backend torch
    """
    from unitrain.train.inference import TrainedRun, write_predictions

    predictions = TrainedRun.open(run, backend=backend, device=device).predict(data)
    write_predictions(out, predictions.columns, replace=force)
    for note in predictions.notes:
        typer.echo(note)
    count = len(next(iter(predictions.columns.values())))
    typer.echo(f"{count:,} predictions in {out}: {', '.join(predictions.columns)}")
