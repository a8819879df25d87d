"""`unitrain study`: quantised and pruned variants of a model, measured side by side."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unitrain.spec.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from unitrain.spec.study import StudySpec
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
    seed: Annotated[int, typer.Option(min=0, help="Keys splits, bootstrap and the order of each round.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Of the report; by default studies/NAME-TIME.")
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
    if source is None:
        raise InputError("name what is to be studied", allowed="a run folder, a recipe, or a model.onnx")
    _check_number("--margin", margin, 0.0, 1.0)
    _check_number("--rounds", rounds, 5, 10_000)
    _check_number("--threads", threads, 1, 256)
    # Before any library is loaded that reads it once.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads or 1)
    from unitrain.backends import load_backend

    load_backend("onnx")
    from unitrain.cli.study_bar import StudyBar
    from unitrain.report.study_table import print_study
    from unitrain.study.files import make_folder, write_files
    from unitrain.study.session import study as run
    from unitrain.study.variants import choose

    beside = {"data": data, "labels": labels, "preprocess": preprocess, "calib": calib, "shape": shape}
    given: dict[str, Any] = {"margin": margin, "rounds": rounds, "threads": threads}
    named = [word.strip() for text in variants or () for word in text.split(",") if word.strip()] or None
    choose(named, is_run=False)
    bar = StudyBar()
    try:
        subject, options = _subject(source, given, beside, seed)
        chosen, runtimes = choose(named if named is not None else options.variants, is_run=subject.trained is not None)
        folder = make_folder(out, subject.name)
        request = {"source": str(source.resolve()), "variants": named, "seed": seed, **given}
        request |= {name: str(value.resolve()) if isinstance(value, Path) else value for name, value in beside.items()}
        found = run(subject, chosen, runtimes, options, folder, seed, request, bar)
    finally:
        bar.close()
    found.command = shlex.join(["unitrain", *sys.argv[1:]])
    plain = found.to_plain()
    write_files(plain, folder)
    if as_json:
        typer.echo(json.dumps(plain, allow_nan=False))
        return
    print_study(plain)
    typer.echo(f"report: {folder}")


def _subject(source: Path, given: dict[str, Any], beside: dict[str, Any], seed: int) -> tuple[Subject, StudySpec]:
    """Read what is studied, and the settings: those of the command line over those of the recipe."""
    from unitrain.spec.study import StudySpec

    def settled(base: StudySpec) -> StudySpec:
        return base.model_copy(update={name: value for name, value in given.items() if value is not None})

    if not source.exists():
        near = [entry.name for entry in source.parent.iterdir()] if source.parent.is_dir() else []
        raise InputError("no such run, recipe or model", file=str(source), hint=did_you_mean(source.name, near))
    if source.suffix.lower() == ".onnx":
        from unitrain.study.third_party import Given, from_file, read_shapes

        options = settled(StudySpec())
        files = {name: beside[name] for name in ("data", "labels", "preprocess", "calib")}
        return from_file(
            source, Given(**files, shapes=read_shapes(beside["shape"] or ())), options.calibration_samples, seed
        ), options
    for name, value in beside.items():
        if value:
            raise InputError(f"--{name} is for an ONNX file: a run has data of its own", found=str(source))
    if source.is_dir():
        from unitrain.study.subject import from_run
        from unitrain.train.fit import load_run
        from unitrain.train.run_folder import RunFolder

        options = settled(load_run(RunFolder.open(source)).recipe.study)
        return from_run(source, options.calibration_samples, seed), options
    raise InputError("this is neither a run folder, a recipe nor an ONNX file", file=str(source))


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
