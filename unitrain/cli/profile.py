"""How `unitrain fit --profile` tells where the time went."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from unitrain.report.table import print_table
from unitrain.train.profile import Profile

_SHOWN = 10
# Phases of less are left out of the table; the summary has them.
_LEAST_SHARE = 0.001


def show_profile(profile: Profile, as_json: bool) -> None:
    """Print phases, the most costly operators of a step, and the largest lever; or all as one line of JSON."""
    if as_json:
        typer.echo(json.dumps({"event": "profile", **asdict(profile)}))
        return
    typer.echo()
    print_table(
        ["phase", "seconds", "share", "times"],
        [
            [phase.name, f"{phase.seconds:.3f}", f"{100 * phase.share:.1f} %", f"{phase.count:,}"]
            for phase in profile.phases
            if phase.share >= _LEAST_SHARE
        ],
        right=["seconds", "share", "times"],
        foot=["the whole run", f"{profile.seconds:.3f}", "", ""],
    )
    if profile.step_seconds is None or not profile.operators:
        typer.echo("What a step is made of is seen from the second block on, and there was only one.")
    else:
        typer.echo(f"\nA step on {profile.backend} takes {1e3 * profile.step_seconds:,.3f} ms:")
        rest = 1.0 - sum(operator.share for operator in profile.operators)
        shown = profile.operators[:_SHOWN]
        others = sum(operator.share for operator in profile.operators[_SHOWN:])
        print_table(
            ["in a step", "layer", "ms a step", "share"],
            [[one.name, one.layer or "", f"{1e3 * one.seconds:,.4f}", f"{100 * one.share:.1f} %"] for one in shown]
            + [
                [name, "", f"{1e3 * share * profile.step_seconds:,.4f}", f"{100 * share:.1f} %"]
                for name, share in (("all others", others), ("between them", rest))
            ],
            right=["ms a step", "share"],
        )
    typer.echo(f"\n{profile.lever[0].upper()}{profile.lever[1:]}.")
