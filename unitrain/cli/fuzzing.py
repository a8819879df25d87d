"""`unitrain verify --fuzz`: random models, verified one after another; the smallest that fails is written out."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from unitrain.cli.status import Status
    from unitrain.verify.findings import Level
    from unitrain.verify.fuzz.session import Progress


def fuzz(
    count: int,
    seed: int,
    minutes: float | None,
    folder: Path,
    places: Mapping[str, str],
    levels: Collection[Level],
    status: Status,
    *,
    workers: int = 1,
    as_json: bool,
    quiet: bool,
) -> bool:
    """Check ``count`` models of a seed, from where the folder says that an earlier call stopped; return if all passed.

    Raises
    ------
    InputError
        The folder holds something else.
    """
    from unitrain.verify.findings import LEVELS
    from unitrain.verify.fuzz.check import failures
    from unitrain.verify.fuzz.session import run_fuzz

    def tell(progress: Progress) -> None:
        failed = f", {progress.failures} failed" if progress.failures else ""
        status.tell(f"{progress.done} of {progress.count}{failed}; {progress.doing}")

    chosen = f" --backends {','.join(places)}"
    if set(levels) != set(LEVELS):
        chosen += f" --level {','.join(levels)}"
    result = run_fuzz(
        count,
        seed,
        minutes,
        folder,
        partial(failures, backends=dict(places), levels=tuple(levels)),
        tell,
        workers=workers,
        command="unitrain verify {file}" + chosen,
    )
    status.pause()
    if as_json:
        typer.echo(json.dumps({**result.to_plain(), "count": count, "passed": result.passed}))
        return result.passed
    if not quiet:
        for line in result.lines():
            typer.echo(line)
        if not result.complete:
            typer.echo(f"stopped after {minutes:g} minutes; the same command goes on from {folder}")
    typer.echo(f"{'PASS' if result.passed else 'FAIL'} fuzz, {result.done} models")
    return result.passed
