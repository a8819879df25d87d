"""`unitrain prune`: make the model of a run smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unitrain.spec.errors import InputError, unknown_name

if TYPE_CHECKING:
    from unitrain.train.prune import PruneResult

_IMPORTANCES = ("l1", "batch_norm", "taylor")


def prune(
    run: Annotated[Path, typer.Argument(help="The run folder of the trained model.")],
    structured: Annotated[
        float | None, typer.Option(metavar="RATIO", help="Remove this fraction of the channels; shapes shrink.")
    ] = None,
    multiple: Annotated[int, typer.Option(help="Channels stay in multiples of this, one or more.")] = 16,
    importance: Annotated[str, typer.Option(help="Which channels go: least l1, batch_norm or taylor.")] = "l1",
    global_: Annotated[bool, typer.Option("--global", help="One ratio for all layers together, not for each.")] = False,
    batches: Annotated[int, typer.Option(help="Training batches that `--importance taylor` looks at.")] = 8,
    sparsity: Annotated[
        float | None, typer.Option(metavar="FRACTION", help="Set this fraction of the weights to zero; shapes stay.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(metavar="N:M", help="Keep the N largest of every M input channels, such as 2:4.")
    ] = None,
    fold: Annotated[bool, typer.Option("--fold", help="Fold batch norm into the layers before or behind it.")] = False,
    finetune: Annotated[
        int | None, typer.Option(metavar="EPOCHS", help="Train so many epochs; zeros stay zeros.")
    ] = None,
    distill: Annotated[
        bool, typer.Option("--distill", help="Train on what the model said before it was pruned, too.")
    ] = False,
    lr: Annotated[float | None, typer.Option(help="Its learning rate; by default the run's.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="numpy, keras or torch; by default the run's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to make; by default one in runs/.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the new run folder only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the model of a run smaller, and leave a run folder with the result.

    Examples:

      unitrain prune runs/digits-cnn --structured 0.5 --finetune 5

      unitrain prune runs/digits-cnn --structured 0.5 --finetune 5 --distill

      unitrain prune runs/digits-cnn --pattern 2:4 --finetune 5 --backend torch

      unitrain prune runs/digits-cnn --sparsity 0.8 --global
    """
    from unitrain.cli.progress import make_display
    from unitrain.train.prune import PruneOptions, prune_run
    from unitrain.train.run_folder import json_values

    if importance not in _IMPORTANCES:
        raise unknown_name("importance", importance, _IMPORTANCES, ("--importance",))
    if sparsity is not None and not 0.0 <= sparsity <= 1.0:
        raise InputError("a sparsity is a fraction", found=f"--sparsity {sparsity}", allowed="0 to 1")
    if sparsity is not None and pattern is not None:
        raise InputError("a pattern has a sparsity of its own", allowed="--sparsity or --pattern")
    options = PruneOptions(
        structured,
        multiple,
        importance,  # type: ignore[arg-type]  # one of these words: looked up above
        "global" if global_ else "group",
        batches,
        sparsity,
        _pattern(pattern),
        "global" if global_ else "layer",
        fold,
    )
    result = prune_run(
        run,
        options,
        finetune=finetune,
        distill=distill,
        lr=lr,
        backend=backend,
        device=device,
        out=out,
        overrides=list(set_ or []),
        observers=[make_display(quiet or as_json, False)],
    )
    if as_json:
        typer.echo(json.dumps(json_values(result.to_plain()), allow_nan=False))
    elif quiet:
        typer.echo(result.folder.path)
    else:
        _print(result)
    if result.end is not None and result.end.reason == "not finite":
        raise typer.Exit(1)
    if result.end is not None and result.end.reason in ("interrupted", "terminated"):
        raise typer.Exit(130)


def _pattern(text: str | None) -> tuple[int, int] | None:
    """Read ``2:4``."""
    if text is None:
        return None
    kept, _, of = text.partition(":")
    if not (kept.isdecimal() and of.isdecimal() and 0 < int(kept) < int(of)):
        raise InputError("a pattern says how many of how many are kept", found=f"--pattern {text}", allowed="2:4, 1:4")
    return int(kept), int(of)


def _print(result: PruneResult) -> None:
    from unitrain.cli.run_lines import show_values
    from unitrain.report.table import print_table

    if result.groups:
        rows = [
            [", ".join(group.layers), f"{group.before:,}", f"{group.after:,}", _change(group.before, group.after)]
            for group in result.groups
        ]
        print_table(["channels of", "before", "after", "change"], rows, right=["before", "after", "change"])
        typer.echo()
    if result.sparsities:
        shares = [[name, f"{100 * share:.1f} %"] for name, share in result.sparsities.items()]
        print_table(["kernel", "zeros"], shares, right=["zeros"])
        typer.echo()
    costs = [
        [label, f"{before:,}", f"{after:,}", _change(before, after)]
        for label, before, after in (
            ("parameters", result.before.parameters, result.after.parameters),
            ("not zero", result.before.nonzero, result.after.nonzero),
            ("MACs", result.before.macs, result.after.macs),
        )
    ]
    print_table(["model", "before", "after", "change"], costs, right=["before", "after", "change"])
    typer.echo()
    for note in result.notes:
        typer.echo(f"note: {note}")
    for label, values in result.values.items():
        typer.echo(f"{label + ':':<12}{show_values(values)}" + (f"  ({result.part})" if result.part else ""))
    typer.echo(f"{'run folder:':<12}{result.folder.path}")


def _change(before: Any, after: Any) -> str:
    return f"{100 * (after / before - 1):+.1f} %" if before else ""
