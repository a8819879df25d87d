"""`unitrain verify`: show that all backends compute the same, or name the layer that differs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from unitrain.spec.errors import InputError, Problem, unknown_name

if TYPE_CHECKING:
    from unitrain.backends.contract import Precision
    from unitrain.cli.status import Status
    from unitrain.verify.findings import Level, Report
    from unitrain.verify.subject import Subject


def verify(
    sources: Annotated[
        list[Path] | None, typer.Argument(help="Models, recipes and run folders.", show_default=False)
    ] = None,
    backends: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="numpy, keras, torch, onnx, by commas; by default all that are installed."),
    ] = None,
    level: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES", help="forward, backward, step, trajectory, transfer or all, by commas or repeated."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Length of the training runs, in batches.")] = 200,
    dtype: Annotated[
        str, typer.Option(help="float32, float64, float16, bfloat16, or one of the last two with mixed_ before it.")
    ] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto; NumPy stays on the CPU.")] = "cpu",
    seed: Annotated[int | None, typer.Option(min=0, help="Keys weights, drawn data and dropout.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A model's argument, or a recipe's field: optimizer.lr=0.1."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="A model of your own: path.py:make_model (torch or Keras) or model.onnx. Of several, the first one's "
            "weights are what the others' must be.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --against: a YAML map, the spec's parameters to your model's."),
    ] = None,
    write_map: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --against: write the map that was found, for editing.")
    ] = None,
    layout: Annotated[
        str, typer.Option(help="With --against: how your model takes images, nhwc, nchw or auto: what it runs with.")
    ] = "auto",
    fuzz: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Verify N random models instead, the same for one --seed.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="With --fuzz: stop after this time; the same command goes on.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="With --fuzz: where it goes on and writes what fails; by default fuzz-SEED.", metavar="FOLDER"
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --fuzz: processes that verify models, one by default.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every layer, not the worst ones only.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with all tensors and plots.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print PASS or FAIL only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object, one line each.")] = False,
) -> None:
    """Show that NumPy, Keras, torch and ONNX Runtime compute the same: outputs, gradients, steps, training runs.

    What is right is decided by a float64 run. Exit code 1 if anything differs by more than rounding.

    Examples:

      unitrain verify models/lenet5.yaml

      unitrain verify recipes/digits-cnn.yaml --backends torch,keras --level step

      unitrain verify models/*.yaml --steps 50 --html verify.html

      unitrain verify models/lenet5.yaml --against mine.py:make_model

      unitrain verify --fuzz 1000 --seed 7 --minutes 30
    """
    from unitrain.backends import BACKENDS
    from unitrain.backends.contract import Precision
    from unitrain.verify.findings import LEVELS

    levels: tuple[Level, ...] = _choose("level", level, (*LEVELS, "all"))  # type: ignore[assignment]  # as checked
    if not levels or "all" in levels:
        levels = LEVELS
    precision: Precision = _one_of("dtype", dtype, get_args(Precision))  # type: ignore[assignment]  # as checked
    named = _choose("backend", backends, tuple(BACKENDS))
    _check_page(html)
    _check_fuzzing(fuzz, sources, {"--against": against, "--set": set_, "--html": html}, minutes, folder, workers)
    user = _User(tuple(against or ()), weights, write_map, layout)
    user.check(
        sources or [], {"--backends": backends, "--level": level, "--dtype": None if dtype == "float32" else dtype}
    )

    from unitrain.cli.status import Status

    with Status() as status:
        if fuzz is not None:
            from unitrain.cli.fuzzing import fuzz as run_fuzz

            places, _ = _devices(named, device, precision, status)
            place = folder or Path(f"fuzz-{seed or 0}")
            good = run_fuzz(
                fuzz,
                seed or 0,
                minutes,
                place,
                places,
                levels,
                status,
                workers=workers or 1,
                as_json=as_json,
                quiet=quiet,
            )
            raise typer.Exit(0 if good else 1)
        subjects = _subjects(sources or [], set_ or [], seed, status)
        if user.models:
            runs = user.reports(*subjects[0], status)
        else:
            places, notes = _devices(named, device, precision, status)
            runs = _across(subjects, places, notes, levels, precision, steps, status)
        count = max(len(subjects), len(user.models))
        passed: dict[str, bool] = {}
        reports = []
        for number, (source, report) in enumerate(runs, start=1):
            passed[source] = report.passed
            plain = {"source": source, **report.to_plain()}
            status.pause()
            _show(plain, as_json=as_json, quiet=quiet, every=every, last=number == count)
            if html is not None:
                reports.append(plain)
        if html is not None:
            from unitrain.report.verify_page import render_verify_page

            status.tell("drawing the page")
            html.write_text(render_verify_page(reports, _command(sys.argv)), encoding="utf-8")
    if count > 1 and not as_json:
        _close(passed)
    if html is not None and not (as_json or quiet):
        typer.echo(f"page: {html}")
    if not all(passed.values()):
        raise typer.Exit(1)


def _check_fuzzing(
    count: int | None,
    sources: Sequence[Path] | None,
    others: Mapping[str, object],
    minutes: float | None,
    folder: Path | None,
    workers: int | None,
) -> None:
    """Raise `InputError` where options do not go together."""
    if count is None:
        own = (("--minutes", minutes), ("--folder", folder), ("--workers", workers))
        alone = [option for option, value in own if value is not None]
        if alone:
            raise InputError(f"{alone[0]} needs --fuzz")
        if not sources:
            raise InputError("name a model, a recipe or a run folder", allowed="unitrain verify models/lenet5.yaml")
        return
    if sources:
        raise InputError("--fuzz draws its own models", found=", ".join(map(str, sources)))
    for option, value in others.items():
        if value:
            raise InputError(f"{option} does not go with --fuzz")


def _across(
    subjects: Sequence[tuple[Path, Subject]],
    places: dict[str, str],
    notes: Sequence[str],
    levels: tuple[Level, ...],
    precision: Precision,
    steps: int,
    status: Status,
) -> Iterator[tuple[str, Report]]:
    """Verify each subject across the backends."""
    from unitrain.verify.session import verify as run

    for number, (source, subject) in enumerate(subjects, start=1):
        status.about = f"{number}/{len(subjects)} {subject.name}" if len(subjects) > 1 else subject.name
        report = run(subject, places, levels=levels, precision=precision, steps=steps, exporters=True, tell=status.tell)
        report.notes = [*notes, *report.notes]
        yield str(source), report


@dataclass(frozen=True)
class _User:
    """The user's own models and what was said of them."""

    models: tuple[str, ...]
    weights: Path | None
    write_map: Path | None
    layout: str

    def check(self, sources: Sequence[Path], others: Mapping[str, object]) -> None:
        """Raise `InputError` where options do not go together."""
        own = {"--weights": self.weights, "--write-map": self.write_map}
        own["--layout"] = None if self.layout == "auto" else Path(self.layout)
        refused = others if self.models else own
        for option, value in refused.items():
            if value is not None:
                rule = "does not go with" if self.models else "needs"
                raise InputError(f"{option} {rule} --against")
        if self.models and len(sources) > 1:
            raise InputError("--against takes one model, recipe or run", found=", ".join(map(str, sources)))
        if self.write_map is not None and not self.write_map.parent.is_dir():
            raise InputError("the folder does not exist", file=str(self.write_map.parent))

    def reports(self, source: Path, subject: Subject, status: Status) -> Iterator[tuple[str, Report]]:
        """Hold the models to the subject; those of a run are to have its weights."""
        from unitrain.verify.against import LAYOUTS, LayoutName, against_reports

        layout: LayoutName = _one_of("layout", self.layout, LAYOUTS)  # type: ignore[assignment]  # as checked
        status.about = subject.name
        reports = against_reports(
            subject,
            self.models,
            self.weights,
            write_map=self.write_map,
            layout=layout,
            expected_weights=subject.weights if source.is_dir() else None,
            tell=status.tell,
        )
        for text, report in zip(self.models, reports, strict=True):
            yield f"{source} against {text}", report


def _choose(kind: str, given: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """Read names that were given by commas or one by one, each once. Raises `InputError`."""
    words = [word.strip() for text in given or () for word in text.split(",")]
    return tuple(dict.fromkeys(_one_of(kind, word, known) for word in words if word))


def _one_of(kind: str, word: str, known: Sequence[str]) -> str:
    if word not in known:
        raise unknown_name(kind, word, known)
    return word


def _check_page(path: Path | None) -> None:
    """See before the work begins that the page can be written."""
    if path is None:
        return
    from unitrain.report.figures import check_report_packages

    check_report_packages()
    if path.is_dir():
        raise InputError("this is a folder; --html names a file", file=str(path))
    if not path.parent.is_dir():
        raise InputError("the folder does not exist", file=str(path.parent))


def _devices(
    named: Sequence[str], request: str, precision: Precision, status: Status
) -> tuple[dict[str, str], list[str]]:
    """Return backend to device, and notes on what is left out or runs elsewhere.

    A backend that the user has not named, and that is not installed or does not compute in the precision, is left out.
    A device is needed on one backend at least; those without it run on the CPU, and a note says so.
    """
    from unitrain.backends import BACKENDS, load_backend, resolve_device
    from unitrain.backends.precision import check_precision

    loaded, notes = {}, []
    for name in named or BACKENDS:
        status.tell(f"importing {name}")
        try:
            backend = load_backend(name)
            check_precision(name, backend.precisions, precision)
            loaded[name] = backend
        except InputError as error:
            if named:
                raise
            problem = error.problems[0]
            notes.append("; ".join(filter(None, (f"{name} is left out: {problem.message}", problem.hint))))
    devices: dict[str, str] = {}
    missing: list[str] = []
    for name, backend in loaded.items():
        try:
            devices[name] = resolve_device(backend, request)
        except InputError:
            devices[name] = "cpu"
            missing.append(name)
    if missing and len(missing) == len(loaded):
        present = {device for backend in loaded.values() for device in backend.devices()}
        raise InputError(
            f"no backend finds a device '{request}'",
            found="; ".join(f"{name}: {', '.join(backend.devices())}" for name, backend in loaded.items()),
            allowed=", ".join([*sorted(present), "auto"]),
            hint="run `unitrain doctor` to see every backend's devices",
        )
    notes += [f"{name} has no device '{request}' and runs on the CPU" for name in missing]
    return devices, notes


def _subjects(
    sources: Sequence[Path], settings: Sequence[str], seed: int | None, status: Status
) -> list[tuple[Path, Subject]]:
    """Read everything that is named, so that a mistake in the last shows before the first takes its minutes."""
    from unitrain.verify.source import read_subject

    subjects: list[tuple[Path, Subject]] = []
    problems: list[Problem] = []
    for source in sources:
        status.tell(f"reading {source}")
        try:
            subjects.append((source, read_subject(source, settings, seed)))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError.from_problems(problems)
    return subjects


def _show(plain: dict[str, Any], *, as_json: bool, quiet: bool, every: bool, last: bool) -> None:
    from unitrain.report.verify_table import print_verification, verdict_line

    if as_json:
        print(json.dumps(plain, allow_nan=False), flush=True)
    elif quiet:
        print(verdict_line(plain).plain, flush=True)
    else:
        print_verification(plain, every=every)
        if not last:
            print()


def _close(passed: dict[str, bool]) -> None:
    """Print the line over all."""
    failing = [source for source, good in passed.items() if not good]
    print(
        f"{len(passed) - len(failing):,} of {len(passed):,} passed"
        + (f"; failed: {', '.join(failing)}" if failing else "")
    )


def _command(arguments: Sequence[str]) -> str:
    """Return the command that was typed, so that a page can say how to do it again."""
    return shlex.join(["unitrain", *arguments[1:]])
