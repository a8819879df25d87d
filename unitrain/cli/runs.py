"""`unitrain runs`: list runs, hold two beside one another, remove some."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from unitrain.spec.errors import InputError, unknown_name

ACTIONS = ("list", "compare", "clean")


def runs(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[list [FOLDER] | compare A B | clean RUN...]",
            help="`list` is taken by default, and the folder `runs`.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="compare: write a page with the curves.")] = None,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="clean: remove the checkpoints alone.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="clean: do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="list, compare: print JSON.")] = False,
) -> None:
    """List runs, compare two, or remove those that are named.

    Examples:

      unitrain runs

      unitrain runs compare runs/digits-cnn runs/digits-torch

      unitrain runs clean runs/digits-cnn
    """
    action, *names = words or ["list"]
    if action not in ACTIONS:
        raise unknown_name("action", action, ACTIONS)
    for option, given, belongs in (
        ("--html", html is not None, "compare"),
        ("--checkpoints", checkpoints, "clean"),
        ("--yes", yes, "clean"),
    ):
        if given and action != belongs:
            raise InputError(f"{option} belongs to `unitrain runs {belongs}`", found=f"unitrain runs {action} {option}")
    if action == "list":
        if len(names) > 1:
            raise InputError("name one folder", found=" ".join(names), allowed="unitrain runs list [FOLDER]")
        _list(Path(names[0] if names else "runs"), as_json)
    elif action == "compare":
        if len(names) != 2:
            raise InputError("name two runs", found=" ".join(names) or "none", allowed="unitrain runs compare A B")
        _compare([Path(name) for name in names], html, as_json)
    else:
        if as_json or not names:
            raise InputError("name the runs to remove", allowed="unitrain runs clean RUN... [--checkpoints] [--yes]")
        _clean([Path(name) for name in names], checkpoints, yes)


def _list(folder: Path, as_json: bool) -> None:
    from unitrain.train.run_folder import json_values
    from unitrain.train.runs import find_runs

    found = find_runs(folder)
    if as_json:
        typer.echo(json.dumps(json_values([run.to_plain() for run in found])))
        return
    if not found:
        typer.echo(f"no runs in {folder}")
        return

    from unitrain.report.table import print_table

    rows = [
        (
            run.path,
            run.state,
            f"{run.backend} ({run.device})" if run.backend else "",
            f"{run.epoch}/{run.epochs}",
            "" if run.value is None else f"{run.monitor} {run.value:.4f}",
            f"{run.seconds:.1f} s",
            run.started.replace("T", " ")[:16],
        )
        for run in found
    ]
    head = ("run", "state", "backend", "epochs", "best", "time", "started")
    print_table(head, rows, right=("epochs", "time"), fixed=("state", "started"))


def _compare(paths: Sequence[Path], html: Path | None, as_json: bool) -> None:
    from unitrain.train.run_folder import RunFolder
    from unitrain.train.runs import curves_of, differing, settings_of, summarize

    folders = [RunFolder.open(path) for path in paths]
    names = [str(path) for path in paths]
    settings = differing(*(settings_of(folder) for folder in folders))
    ends = differing(*(_result(summarize(folder).to_plain()) for folder in folders))
    by_run = [curves_of(folder.history()) for folder in folders]
    labels = list(dict.fromkeys(label for curves in by_run for label in curves))
    curves = {label: {n: c.get(label, []) for n, c in zip(names, by_run, strict=True)} for label in labels}
    if html is not None:
        from unitrain.report.comparison_page import render_comparison_page
        from unitrain.weights.store import write_text

        rows = [[field, _show(one), _show(two)] for field, one, two in [*settings, *ends]]
        write_text(html, render_comparison_page(names, rows, curves))
    if as_json:
        plain = {"runs": names, "settings": settings, "results": ends, "curves": curves}
        typer.echo(json.dumps(plain))
        return
    from unitrain.report.table import print_table
    from unitrain.report.text_chart import text_chart

    for mark, name in zip("AB", names, strict=True):
        typer.echo(f"{mark}  {name}")
    for title, rows_of in (("settings that differ", settings), ("results", ends)):
        typer.echo()
        if rows_of:
            print_table((title, "A", "B"), [(field, _show(one), _show(two)) for field, one, two in rows_of])
        else:
            typer.echo(f"{title}: none")
    for label in labels:
        typer.echo()
        for line in text_chart(label, curves[label]):
            typer.echo(line)
    if html is not None:
        typer.echo(f"\npage        {html}")


def _result(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what stands among the settings already, and the path, which is the run's name."""
    return {key: value for key, value in summary.items() if key not in ("path", "backend", "device", "epochs")}


def _clean(paths: Sequence[Path], checkpoints: bool, yes: bool) -> None:
    from unitrain.cli.summary import show_bytes
    from unitrain.folders import size_of
    from unitrain.train.runs import check_removable, remove

    folders = [check_removable(path) for path in dict.fromkeys(paths)]
    for folder in folders:
        target = folder.checkpoints.path if checkpoints else folder.path
        typer.echo(f"{show_bytes(size_of(target)):>10}  {target}")
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("nobody is there to ask", hint="--yes removes without asking")
        typer.confirm("remove?", abort=True)
    freed = sum(remove(folder, checkpoints_only=checkpoints) for folder in folders)
    typer.echo(f"removed, {show_bytes(freed)} are free again")


def _show(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
