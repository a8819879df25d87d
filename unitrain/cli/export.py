"""`unitrain export`: write a run or a model for another program, and see that it computes the same there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unitrain.spec.errors import InputError, did_you_mean, unknown_name

if TYPE_CHECKING:
    from unitrain.backends.contract import Arrays, Precision
    from unitrain.graph.graph import Graph
    from unitrain.train.inference import TrainedRun
    from unitrain.train.recipe import LoadedRecipe
    from unitrain.verify.export import ExportResult
    from unitrain.verify.export_int8 import Nearness

TARGETS = ("onnx", "torch", "keras", "saved-model", "safetensors")
EXPORTERS = ("unitrain", "torch", "keras")


@dataclass(frozen=True)
class Subject:
    """What is exported.

    Parameters
    ----------
    name
        What the file is called when nobody says so.
    graph, weights, precision
        The model.
    inputs
        Samples to compare on.
    notes
        Where weights and samples come from, where that is not what one would expect.
    specification
        The model's specification as YAML.
    """

    name: str
    graph: Graph
    weights: Arrays
    precision: Precision
    inputs: Arrays
    notes: tuple[str, ...]
    specification: str


def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL", help="A run folder, or a model or recipe.", show_default=False)
    ],
    to: Annotated[str, typer.Option("--to", help=f"{', '.join(TARGETS)}.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Where to write; by default named like the run or model.")] = None,
    opset: Annotated[int | None, typer.Option(metavar="N", help="ONNX's opset, from 17 on; by default 21.")] = None,
    with_preprocessing: Annotated[
        bool, typer.Option("--with-preprocessing", help="ONNX of a run: take raw columns, give classes or units.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="ONNX of a run trained with `quantization`: computes in integers.")
    ] = False,
    exporter: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who writes ONNX: unitrain, or the exporter of torch or keras.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Set a model's argument or a recipe's field."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Write a trained run for ONNX, torch, Keras or TensorFlow; what was written is run again and compared.

    The file gets its name only if its outputs are right, else the exit code is 1 and nothing is left.

    Examples:

      unitrain export runs/churn --to onnx --with-preprocessing

      unitrain export runs/digits-cnn --to keras --out digits.keras

      unitrain export runs/digits-int8 --to onnx --int8

      unitrain export models/lenet5.yaml --to onnx --opset 17 --set classes=47
    """
    from unitrain.verify.export_files import SUFFIXES

    if to not in TARGETS:
        raise unknown_name("target", to, TARGETS, ("--to",))
    if exporter is not None and exporter not in EXPORTERS:
        raise unknown_name("exporter", exporter, EXPORTERS, ("--exporter",))
    for name, given in (
        ("--opset", opset),
        ("--exporter", exporter),
        ("--with-preprocessing", with_preprocessing),
        ("--int8", int8),
    ):
        if given and to != "onnx":
            raise InputError(f"{name} is for --to onnx", found=f"--to {to}")
    if int8 and (with_preprocessing or exporter in ("torch", "keras")):
        other = "--with-preprocessing" if with_preprocessing else f"--exporter {exporter}"
        raise InputError("--int8 is written by our own exporter, of the model alone", found=other)
    if with_preprocessing and exporter in ("torch", "keras"):
        raise InputError(f"--with-preprocessing is written by our own exporter, not by that of {exporter}")
    if not source.exists():
        near = [entry.name for entry in source.parent.iterdir()] if source.parent.is_dir() else []
        raise InputError("no such run, model or recipe", file=str(source), hint=did_you_mean(source.name, near))
    if int8 and not source.is_dir():
        raise InputError("only a run has been trained for integers: name a run folder", file=str(source))
    if with_preprocessing and not source.is_dir():
        raise InputError("only a run has preprocessing: name a run folder", file=str(source))
    trained, loaded = _opened(source, set_ or [])
    stem = source.resolve().name if trained is not None else source.stem
    target: Any = to
    place = out or Path(f"{stem}{SUFFIXES[target] or '-saved-model'}")
    if int8 and trained is not None:
        _int8(trained, place, opset, force, as_json)
        return
    if with_preprocessing and trained is not None:
        from unitrain.verify.export_data import export_with_preprocessing

        result = export_with_preprocessing(trained, place, opset=opset, replace=force)
        notes: tuple[str, ...] = ()
    else:
        result, notes = _plain(source, trained, loaded, set_ or [], place, target, opset, exporter, force)
    _tell(result, (*notes, *result.notes), to, as_json)
    if not result.passed:
        raise typer.Exit(1)


def _int8(trained: TrainedRun, place: Path, opset: int | None, force: bool, as_json: bool) -> None:
    """Export for integers, compared on the test part of the data, else the validation part."""
    from unitrain.train.session import prepare_data
    from unitrain.verify.export_files import check_place
    from unitrain.verify.export_int8 import AGREEMENT, DEVIATION, export_int8

    check_place(place, "onnx", replace=force)
    prepared = prepare_data(trained.loaded, trained.preprocessing)
    split = prepared.test or prepared.validation or prepared.train
    deciding = ("cross_entropy", "binary_cross_entropy")
    classes = frozenset(name for name, loss in trained.loaded.losses.items() if loss.loss.type in deciding)
    weights = trained.program.weights()
    result = export_int8(trained.loaded.graph, weights, place, split.inputs, classes, opset=opset, replace=force)
    if as_json:
        typer.echo(json.dumps({**asdict(result), "path": str(result.path), "passed": result.passed}, indent=2))
    else:
        lines = _nearness(result.exact)
        if result.saturated is not None:
            lines += [
                "  note: this processor has no VNNI instructions, and sums of products saturate in onnxruntime, unless",
                "  the session's entry session.x64quantprecision is 1; without it here:",
                *_nearness(result.saturated),
            ]
        state = f"{result.size_bytes:,} bytes, computes in integers" if result.passed else "not exported"
        typer.echo("\n".join([f"{place}: {state}; {result.samples:,} samples compared", *lines]), err=not result.passed)
    if not result.passed:
        if not as_json:
            typer.echo(f"  allowed: {AGREEMENT:.1%} of decisions, else {DEVIATION:.0%}", err=True)
        raise typer.Exit(1)


def _nearness(found: Nearness) -> list[str]:
    """Say how near integers are to the model in training, a line an output."""
    return [
        f"  {name}: "
        + (f"{found.agreement[name]:.2%} of decisions as in training, " if name in found.agreement else "")
        + f"numbers off by {value:.2%} of their standard deviation"
        for name, value in found.deviation.items()
    ]


def _opened(source: Path, settings: list[str]) -> tuple[TrainedRun | None, LoadedRecipe | None]:
    """Open a run or a recipe; neither is given for a model."""
    if source.is_dir():
        from unitrain.train.inference import TrainedRun

        if settings:
            raise InputError("a run is exported as it was trained: --set is for models and recipes")
        trained = TrainedRun.open(source, backend="numpy", device="cpu")
        return trained, trained.loaded
    from unitrain.spec.documents import is_recipe
    from unitrain.spec.yaml import read_yaml

    if is_recipe(read_yaml(source)):
        from unitrain.train.recipe import load_recipe

        return None, load_recipe(source, settings)
    return None, None


def _plain(
    source: Path,
    trained: TrainedRun | None,
    loaded: LoadedRecipe | None,
    settings: list[str],
    place: Path,
    to: Any,
    opset: int | None,
    exporter: Any,
    force: bool,
) -> tuple[ExportResult, tuple[str, ...]]:
    """Export without preprocessing; return the result and notes."""
    from unitrain.verify.export import Options, export_checked
    from unitrain.verify.export_files import check_place

    # Before the data is read.
    check_place(place, to, replace=force)
    subject = _model(source, settings) if loaded is None else _recipe(loaded, trained)
    options = Options(opset, exporter or "unitrain", subject.precision, subject.specification)
    result = export_checked(subject.graph, subject.weights, to, place, subject.inputs, options, replace=force)
    return result, subject.notes


def _recipe(loaded: LoadedRecipe, trained: TrainedRun | None) -> Subject:
    from unitrain.backends.precision import stored_in
    from unitrain.train.session import prepare_data
    from unitrain.weights.initialize import initialize

    recipe, graph = loaded.recipe, loaded.graph
    notes = []
    if trained is None:
        weights: Arrays = initialize(graph, recipe.seed)
        notes.append(f"the weights are not trained: drawn from seed {recipe.seed}")
    else:
        weights = trained.program.weights()
    try:
        prepared = prepare_data(loaded, None if trained is None else trained.preprocessing)
        inputs: Mapping[str, Any] = (prepared.validation or prepared.train).inputs
    except InputError as error:
        inputs = _drawn(graph, recipe.seed)
        reason = str(error).splitlines()[0]
        notes.append(f"compared on inputs drawn at random, as the recipe's data cannot be read: {reason}")
    precision = stored_in(recipe.training.precision)
    return Subject(recipe.name, graph, weights, precision, inputs, tuple(notes), loaded.model.to_yaml())


def _model(file: Path, settings: list[str]) -> Subject:
    from unitrain.graph.resolve import resolve
    from unitrain.spec.base import validate
    from unitrain.spec.documents import read_arguments
    from unitrain.spec.model import ModelSpec
    from unitrain.spec.yaml import read_yaml
    from unitrain.weights.initialize import initialize

    document, arguments = read_yaml(file), read_arguments(settings)
    model = validate(ModelSpec, document)
    graph = resolve(model, arguments, document)
    filled = model.model_copy(update={"arguments": {**model.arguments, **arguments}})
    notes = ("the weights are not trained: drawn from seed 0",)
    return Subject(model.name, graph, initialize(graph, 0), "float32", _drawn(graph, 0), notes, filled.to_yaml())


def _drawn(graph: Graph, seed: int) -> Arrays:
    from unitrain.verify.export import SAMPLES, sample_count
    from unitrain.verify.subject import draw_input
    from unitrain.weights.random import stream

    generator = stream(seed, "verify", "data")
    return {name: draw_input(graph, name, sample_count(graph, SAMPLES), generator) for name in graph.inputs}


def _tell(result: ExportResult, notes: tuple[str, ...], to: str, as_json: bool) -> None:
    """Print what was written and how right it is, or which tensor is not."""
    if as_json:
        from unitrain.train.run_folder import json_values

        plain = {
            "target": to,
            "path": str(result.path),
            "passed": result.passed,
            "size_bytes": result.size_bytes,
            "notes": list(notes),
            "verdicts": {name: asdict(verdict) for name, verdict in result.verdicts.items()},
        }
        typer.echo(json.dumps(json_values(plain), indent=2, allow_nan=False))
        return
    name, verdict = result.worst
    for note in notes:
        typer.echo(f"note: {note}", err=not result.passed)
    if not result.passed:
        wrong = sum(not item.passed for item in result.verdicts.values())
        typer.echo(f"not exported: {wrong} of {len(result.verdicts)} outputs are wrong in {result.path}", err=True)
        typer.echo(f"  worst:   {name}: {verdict}", err=True)
        return
    typer.echo(f"{result.path}: {result.size_bytes:,} bytes, run again and right")
    typer.echo(f"  worst:   {name}: {verdict}")
