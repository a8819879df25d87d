"""`unitrain fit`: train a recipe."""

from __future__ import annotations

import json
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from unitrain.garbage import everything_stays
from unitrain.spans import process_seconds, recording
from unitrain.spec.errors import InputError

_SIGNALS = {"interrupted": signal.SIGINT, "terminated": signal.SIGTERM}


def fit(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe to train.", show_default=False)] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run folder from its last checkpoint, or from this one.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="numpy, keras or torch; instead of the recipe's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Short for --set training.epochs=N.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Short for --set training.batch_size=N.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, float64, mixed_bfloat16 or mixed_float16; short for --set.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set seed=N.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field: optimizer.lr=0.01, model.classes=7."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to make; by default one in runs/.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all, read the data, take one step, keep nothing.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print where the time went; write a trace into the run folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the run folder only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Train a recipe and leave a run folder.

    Examples:

      unitrain fit recipes/digits-cnn.yaml

      unitrain fit recipes/digits-cnn.yaml --backend torch --device cuda --set optimizer.lr=0.003

      unitrain fit recipes/digits-cnn.yaml --profile

      unitrain fit --resume runs/digits-cnn
    """
    if (recipe is None) == (resume is None):
        raise InputError(
            "name a recipe to train, or a run to go on with: one of the two",
            allowed="unitrain fit RECIPE, or unitrain fit --resume RUN",
        )
    if dry_run and (resume is not None or profile):
        raise InputError(
            "a rehearsal takes one step and keeps nothing",
            found=f"--dry-run {'--resume' if resume is not None else '--profile'}",
            allowed="--dry-run with a recipe, without --profile",
        )
    overrides = list(set_ or [])
    shorts: dict[str, int | str | None] = {
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.precision": precision,
        "seed": seed,
    }
    for name, value in shorts.items():
        if value is not None:
            overrides.append(f"{name}={value}")

    with everything_stays():
        from unitrain.cli.progress import make_display
        from unitrain.train import fit as runs

    if dry_run and recipe is not None:
        for line in runs.rehearse(recipe, backend=backend, device=device, overrides=overrides):
            typer.echo(line)
        return
    display = make_display(quiet, as_json)
    with nullcontext() if not profile else recording(process_seconds()) as recorder:
        if resume is not None:
            result = runs.resume(resume, backend=backend, device=device, overrides=overrides, observers=[display])
        else:
            assert recipe is not None
            result = runs.fit(recipe, backend=backend, device=device, out=out, overrides=overrides, observers=[display])
    places = runs.where_things_lie(result)
    if recorder is not None:
        from unitrain.cli.profile import show_profile
        from unitrain.train.profile import summarize
        from unitrain.train.profile_files import write_profile

        found = summarize(recorder)
        write_profile(result.folder.path / "profile", recorder, found)
        places["profile"] = str(result.folder.path / "profile")
        if not quiet:
            show_profile(found, as_json)
    if as_json:
        typer.echo(json.dumps({"event": "written", **places}))
    elif quiet:
        typer.echo(result.folder.path)
    else:
        for name, path in places.items():
            typer.echo(f"{name:<12}{path}")
    if result.end.reason == "not finite":
        raise typer.Exit(1)
    # What a shell and a scheduler expect of a process that a signal has ended: 128 and the signal's number.
    if result.end.reason in _SIGNALS:
        raise typer.Exit(128 + _SIGNALS[result.end.reason])
