"""`unitrain study`: quantised and pruned variants of a model, measured side by side."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unitrain.spec.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from unitrain.spec.study import StudySpec
    from unitrain.study.progress import Progress
    from unitrain.study.subject import Subject


def study(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN|RECIPE|MODEL.onnx",
            help="A run folder, a recipe that is trained first, or anybody's ONNX file.",
            show_default=False,
        ),
    ] = None,
    variants: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="By commas, or all; see --list. By default those that need no training."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="For an ONNX file: a folder of pictures, or an npz with its inputs."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Columns file,label for pictures; label for arrays, a line each."),
    ] = None,
    preprocess: Annotated[
        Path | None, typer.Option(metavar="YAML", help="How pictures become the input: size, mean, std, ...")
    ] = None,
    calib: Annotated[
        Path | None, typer.Option(metavar="NPZ", help="Samples without labels: to calibrate, and for fidelity.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="INPUT=SIZES", help="Of a sample, where the file does not say it: x=3,48,320."),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(metavar="SHARE", help="The relative loss that is accepted; 0.01 by default.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", help="Interleaved rounds of timing, 5 at least; 30 by default.")
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Of every contender; 1 by default.")] = None,
    finetune_epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Epochs of each variant that is trained further; 3 by default.")
    ] = None,
    distill: Annotated[
        bool, typer.Option("--distill", help="What is pruned also learns what the float model says.")
    ] = False,
    saturation_check: Annotated[
        bool, typer.Option("--saturation-check", help="Tell what changes on CPUs whose 8-bit products saturate.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Keys splits, bootstrap and the order of each round.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Of the report; by default studies/NAME-TIME.")
    ] = None,
    repeat: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Do an earlier study again, and compare.", show_default=False)
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the variants and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON of the report alone.")] = False,
) -> None:
    """Measure which variant of a model to deploy: what it costs in accuracy, what it gains, and how sure that is.

    Each variant's .onnx, JSON, CSV and a page go into a folder.

    Examples:

      unitrain study runs/digits-cnn

      unitrain study recipes/digits-cnn.yaml --variants int8,int8-dynamic,fp16

      unitrain study model.onnx --data images/ --labels labels.csv --preprocess pre.yaml

      unitrain study model.onnx --calib inputs.npz
    """
    if list_:
        _list()
        return
    beside = {"data": data, "labels": labels, "preprocess": preprocess, "calib": calib, "shape": shape}
    given: dict[str, Any] = {"margin": margin, "rounds": rounds, "threads": threads, "finetune_epochs": finetune_epochs}
    # Without the flags a recipe may still ask for it.
    given |= {"distill": distill or None, "saturation_check": saturation_check or None}
    named = [word.strip() for text in variants or () for word in text.split(",") if word.strip()] or None
    earlier: dict[str, Any] | None = None
    if repeat is not None:
        for option, value in {"SOURCE": source, "--variants": named, **beside, **given}.items():
            if value is not None:
                raise InputError("--repeat takes everything from the earlier study", found=option)
        from unitrain.study.files import read_study

        earlier = read_study(repeat)
        request = dict(earlier["request"])
    elif source is None:
        raise InputError("name what is to be studied", allowed="a run folder, a recipe, or a model.onnx")
    else:
        request = {"source": source.resolve(), "variants": named, "seed": seed, **given, **beside}
        request = {
            name: str(Path(value).resolve()) if isinstance(value, Path) else value for name, value in request.items()
        }
    _check_number("--margin", request["margin"], 1e-6, 0.999)
    _check_number("--rounds", request["rounds"], 5, 10_000)
    _check_number("--threads", request["threads"], 1, 256)
    _check_number("--finetune-epochs", request.get("finetune_epochs"), 0, 100_000)
    plain, folder = _run(request, out)
    if as_json:
        typer.echo(json.dumps(plain, allow_nan=False))
    else:
        from unitrain.report.study_table import print_study

        print_study(plain)
        typer.echo(f"report: {folder}")
    if earlier is not None:
        _compare(earlier, plain, quiet=as_json)


def _run(request: dict[str, Any], out: Path | None) -> tuple[dict[str, Any], Path]:
    """Do what was asked for; return the study's plain values and its folder."""
    from unitrain.backends import load_backend

    load_backend("onnx")
    from unitrain.cli.study_bar import make_bar
    from unitrain.report.figures import check_report_packages
    from unitrain.report.study_page import render_study_page
    from unitrain.study.files import PAGE, make_folder, write_files
    from unitrain.study.session import study as run
    from unitrain.study.variants import choose
    from unitrain.weights.store import write_text

    check_report_packages()
    choose(request["variants"], is_run=False)
    source = Path(request["source"])
    if not source.exists():
        near = [entry.name for entry in source.parent.iterdir()] if source.parent.is_dir() else []
        raise InputError("no such run, recipe or model", file=str(source), hint=did_you_mean(source.name, near))
    folder = make_folder(out, source.stem)
    bar = make_bar()
    try:
        subject, options = _subject(source, request, folder, bar)
        named = request["variants"] if request["variants"] is not None else options.variants
        chosen, runtimes = choose(named, is_run=subject.trained is not None)
        found = run(subject, chosen, runtimes, options, folder, request["seed"], request, bar)
    finally:
        bar.close()
        # A folder in which nothing came to stand is not left behind.
        with contextlib.suppress(OSError):
            folder.rmdir()
    found.command = shlex.join(["unitrain", *sys.argv[1:]])
    plain = found.to_plain()
    write_files(plain, folder)
    write_text(folder / PAGE, render_study_page(plain))
    return plain, folder


def _compare(earlier: dict[str, Any], plain: dict[str, Any], *, quiet: bool) -> None:
    """Print how a repetition differs; exit code 1 where what must be the same is not."""
    from unitrain.study.repeat import compare

    differences, told = compare(earlier, plain)
    lines = [*(f"differs: {line}" for line in differences), *(f"note: {line}" for line in told)]
    if not differences:
        lines.append("the same samples, files, gates and quality as before")
    for line in lines:
        typer.echo(line, err=quiet)
    if differences:
        raise typer.Exit(1)


def _subject(source: Path, request: dict[str, Any], folder: Path, bar: Progress) -> tuple[Subject, StudySpec]:
    """Read what is studied, and the settings: those of the command line over those of the recipe."""
    from unitrain.spec.study import StudySpec

    def settled(base: StudySpec) -> StudySpec:
        names = ("margin", "rounds", "threads", "finetune_epochs", "distill", "saturation_check")
        given = {name: request[name] for name in names if request.get(name) is not None}
        options = base.model_copy(update=given)
        if options.distill and not options.finetune_epochs:
            raise InputError("a teacher teaches in fine-tuning", found="--distill", hint="--finetune-epochs N")
        return options

    beside = ("data", "labels", "preprocess", "calib")
    if source.suffix.lower() == ".onnx":
        from unitrain.study.third_party import Given, from_file, read_shapes

        options = settled(StudySpec())
        files = {name: Path(request[name]) if request[name] else None for name in beside}
        given = Given(**files, shapes=read_shapes(request["shape"] or ()))
        return from_file(source, given, options.calibration_samples, request["seed"]), options
    for name in (*beside, "shape"):
        if request[name]:
            raise InputError(f"--{name} is for an ONNX file: a run has data of its own", found=str(source))
    from unitrain.study.subject import from_run
    from unitrain.train.run_folder import RunFolder
    from unitrain.train.session import load_run

    run = source if source.is_dir() else _trained(source, folder, bar)
    options = settled(load_run(RunFolder.open(run)).recipe.study)
    return from_run(run, options.calibration_samples, request["seed"]), options


def _trained(recipe: Path, folder: Path, bar: Progress) -> Path:
    """Train a recipe into the study's folder."""
    from unitrain.spec.documents import is_recipe
    from unitrain.spec.yaml import read_yaml
    from unitrain.study.training import ended
    from unitrain.study.variants import choose
    from unitrain.train.fit import fit
    from unitrain.train.recipe import load_recipe

    if not is_recipe(read_yaml(recipe)):
        raise InputError(
            "a model alone cannot be studied: it is not trained",
            file=str(recipe),
            allowed="a run folder, a recipe, or a model.onnx",
        )
    loaded = load_recipe(recipe)
    # A name that is wrong is told before the training and not after it.
    choose(loaded.recipe.study.variants, is_run=True)
    return ended(fit(loaded, out=folder / "run", observers=(bar.training(),))).path


def _list() -> None:
    from unitrain.backends import load_backend

    load_backend("onnx")
    from unitrain.report.table import print_table
    from unitrain.study.variants import RUNTIMES, VARIANTS

    rows = [[item.name, item.what, item.needs] for item in VARIANTS.values()]
    rows += [[item.name, item.what, "run, and to be named"] for item in RUNTIMES.values()]
    print_table(["variant", "what it is", "needs"], rows, fixed=("variant",))


def _check_number(option: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise InputError(f"{option} is out of range", found=str(value), allowed=f"{low:g} to {high:g}")
