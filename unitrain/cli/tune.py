"""`unitrain tune`: time the forms in which a backend can train a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from unitrain.spec.errors import InputError


def tune(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe whose steps are timed.", show_default=False)] = None,
    backend: Annotated[str | None, typer.Option(help="numpy, keras or torch; instead of the recipe's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="How long to measure; short for --set execution.seconds=N.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field: training.batch_size=32."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Forget what was found, for all recipes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Time the forms in which a backend can train a recipe, and say which is taken.

    A form is taken where its numbers agree with the standard one's and the whole run ends sooner. What was found is
    kept for `unitrain fit` with `execution: {mode: tuned}`, or `auto` where the run is long.

    Examples:

      unitrain tune recipes/digits-cnn.yaml --backend torch

      unitrain tune --clear
    """
    if recipe is None and not clear:
        raise InputError("name a recipe to tune, or --clear", allowed="unitrain tune RECIPE, or unitrain tune --clear")

    from unitrain.train.fit import tune as try_forms
    from unitrain.train.tuning_cache import KnownTrials

    known = KnownTrials()
    if clear:
        count = known.clear()
        typer.echo(f"forgot {count} {'choice' if count == 1 else 'choices'} in {known.folder}")
    if recipe is None:
        return
    overrides = [*(set_ or []), *([] if seconds is None else [f"execution.seconds={seconds}"])]
    choice, steps = try_forms(recipe, backend=backend, device=device, overrides=overrides)
    if as_json:
        trials = [trial.model_dump() for trial in choice.trials]
        typer.echo(json.dumps({"chosen": choice.candidate, "steps": steps, "trials": trials}))
        return

    from unitrain.report.table import print_table

    rows = []
    for trial in choice.trials:
        tried = trial.step_seconds is not None and trial.first_seconds is not None
        rows.append(
            [
                f"{trial.candidate}{' *' if trial.candidate == choice.candidate else ''}",
                f"{1e6 * (trial.step_seconds or 0.0):,.0f}" if tried else "",
                f"{trial.first_seconds:.2f}" if tried else "",
                f"{trial.seconds(steps):.1f}" if tried else "",
                trial.refused or trial.what,
            ]
        )
    print_table(
        ["form", "us a step", "s before it", "s for the run", "what it is, or why it cannot be taken"],
        rows,
        right=["us a step", "s before it", "s for the run"],
        fixed=["form"],
    )
    typer.echo(f"* is taken for a run of {steps:,} steps")
