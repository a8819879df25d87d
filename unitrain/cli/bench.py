"""`unitrain bench`: NumPy, Keras (TensorFlow), torch and ONNX Runtime timed beside one another."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unitrain.spec.errors import InputError, unknown_name

if TYPE_CHECKING:
    from unitrain.bench.results import Case, Report

# What `all` does; curves take long and are for those who name them.
ALL = ("ops", "gradients", "training", "inference")
PARTS = (*ALL, "curves")
_LARGEST = 32768
_DEVICES = ("cpu", "cuda", "mps")


def bench(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PARTS]...",
            help="ops, gradients, training, inference, all of these; curves; or `compare` and two files of --json.",
            show_default=False,
        ),
    ] = None,
    devices: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="cpu, cuda, cuda:1, mps, by commas; cpu by default.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of the matrices, N x N, and the largest of the sweep; 2048 by default."),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="mlp, lenet5, cnn, resnet20, lstm_rows, vit_tiny, or model files, by commas; these six by default.",
        ),
    ] = None,
    backends: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="numpy, keras, torch, onnx, by commas; all that are installed by default."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Of every side; as many as there are processors by default.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", help="Interleaved rounds of each case, 5 at least; 15 by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Keys data, weights and the order of each round.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and few rounds: about 30 s for all.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with charts.")] = None,
    as_json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write JSON, to compare; - prints it alone.")
    ] = None,
) -> None:
    """Time tensor operations, gradients, training and inference on NumPy, TensorFlow, torch and ONNX Runtime.

    `curves` draws seconds and memory over batch size, width and data size.

    All results are checked before they are timed. Exit code 1 if one is wrong or fails.

    Examples:

      unitrain bench --quick

      unitrain bench ops --size 4096 --threads 1 --html ops.html

      unitrain bench training inference --models cnn,mine.yaml --backends numpy,torch

      unitrain bench curves --models mlp --html curves.html

      unitrain bench all --json laptop.json

      unitrain bench compare laptop.json server.json
    """
    started = time.perf_counter()
    words = _words(parts)
    if words[:1] == ["compare"]:
        given: dict[str, object] = {"--devices": devices, "--size": size, "--models": models, "--backends": backends}
        given |= {"--threads": threads, "--rounds": rounds, "--html": html, "--quick": quick}
        _compare([Path(word) for word in (parts or [])[1:]], as_json, given)
        return
    chosen = _parts(words)
    _check_number("--size", size, 16, _LARGEST)
    _check_number("--threads", threads, 1, 4 * _processors())
    _check_number("--rounds", rounds, 5, 10_000)
    named_devices = _devices(devices)
    _check_files(html, as_json)
    count = threads or _wanted_threads()
    _limit_threads(count)

    from unitrain.bench.models import read_models
    from unitrain.bench.runner import Conditions
    from unitrain.bench.session import QUICK_SECONDS, Options
    from unitrain.bench.session import bench as run
    from unitrain.bench.sides import choose_sides
    from unitrain.cli.status import Status
    from unitrain.report.bench_table import BenchTable

    timed = read_models(_words(models) or (("mlp", "lenet5") if quick else ()), seed) if _with_models(chosen) else []
    options = Options(chosen, timed, size or (512 if quick else 2048), quick, count)
    with Status() as status:
        status.about = "bench"
        sides = choose_sides(_words(backends), named_devices, count, status.tell)
        conditions = Conditions(
            rounds or (7 if quick else 15),
            0.003 if quick else 0.01,
            2.0 if quick else 30.0,
            seed,
            tell=status.tell,
            # Where the imports alone take long, a little is measured all the same.
            deadline=max(started + QUICK_SECONDS, time.perf_counter() + QUICK_SECONDS / 2) if quick else math.inf,
        )
        table = None if as_json == "-" else BenchTable()

        def done(case: Case) -> None:
            if table is not None:
                from dataclasses import asdict

                status.pause()
                table.print_case(asdict(case))
                sys.stdout.flush()

        report = run(sides, options, conditions, done)
        report.command = shlex.join(["unitrain", *sys.argv[1:]])
        plain = report.to_plain()
        if table is not None:
            status.pause()
            table.print_end(plain)
        _write(plain, html, as_json, status.tell)
    _fail_if_wrong(report)


def _compare(files: Sequence[Path], as_json: str | None, others: Mapping[str, object]) -> None:
    for option, value in others.items():
        if value:
            raise InputError(f"{option} does not go with compare")
    if len(files) != 2:
        raise InputError(
            "compare takes two files that --json wrote",
            found=", ".join(map(str, files)) or "none",
            allowed="unitrain bench compare laptop.json server.json",
        )
    from unitrain.bench.compare import compare
    from unitrain.report.bench_table import print_comparison

    compared = compare(*files)
    if as_json is None:
        print_comparison(compared)
    elif as_json == "-":
        typer.echo(json.dumps(compared, allow_nan=False))
    else:
        _check_files(None, as_json)
        Path(as_json).write_text(json.dumps(compared, allow_nan=False, indent=1) + "\n", encoding="utf-8")


def _words(given: Sequence[str] | None) -> list[str]:
    """Read names that were given by commas or one by one, each once."""
    words = [word.strip() for text in given or () for word in text.split(",")]
    return list(dict.fromkeys(word for word in words if word))


def _parts(words: Sequence[str]) -> tuple[str, ...]:
    for word in words:
        if word not in (*PARTS, "all"):
            raise unknown_name("part", word, (*PARTS, "all", "compare"))
    wanted = {*words, *(ALL if not words or "all" in words else ())}
    return tuple(part for part in PARTS if part in wanted)


def _with_models(parts: Sequence[str]) -> bool:
    return any(part != "ops" for part in parts)


def _devices(given: Sequence[str] | None) -> list[str]:
    names = _words(given) or ["cpu"]
    for name in names:
        kind, colon, index = name.partition(":")
        if kind not in _DEVICES or (colon and not (kind == "cuda" and index.isdecimal())):
            raise unknown_name("device", name, (*_DEVICES, "cuda:1"))
    return names


def _check_number(option: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise InputError(f"{option} is out of range", found=str(value), allowed=f"{low} to {high}")


def _check_files(html: Path | None, as_json: str | None) -> None:
    """See before the work begins that files can be written."""
    if html is not None:
        from unitrain.report.figures import check_report_packages

        check_report_packages()
    for option, path in (("--html", html), ("--json", None if as_json in (None, "-") else Path(str(as_json)))):
        if path is None:
            continue
        if path.is_dir():
            raise InputError(f"this is a folder; {option} names a file", file=str(path))
        if not path.parent.is_dir():
            raise InputError("the folder does not exist", file=str(path.parent))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _wanted_threads() -> int:
    """Return what ``OMP_NUM_THREADS`` says, which all frameworks read, else the number of processors."""
    word = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(word) if word.isdecimal() and int(word) > 0 else _processors()


def _limit_threads(count: int) -> None:
    """Say it to libraries that read it once, when they are loaded."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)


def _write(plain: dict[str, Any], html: Path | None, as_json: str | None, tell: Any) -> None:
    text = json.dumps(plain, allow_nan=False)
    if as_json == "-":
        print(text, flush=True)
    elif as_json is not None:
        Path(as_json).write_text(text + "\n", encoding="utf-8")
    if html is not None:
        from unitrain.report.bench_page import render_bench_page

        tell("drawing the page")
        html.write_text(render_bench_page(plain), encoding="utf-8")
        if as_json != "-":
            typer.echo(f"page: {html}")


def _fail_if_wrong(report: Report) -> None:
    if report.failures:
        for case, row in report.failures:
            print(f"{case.part}, {case.name}, {row.contender}: {row.failure}", file=sys.stderr)
        raise typer.Exit(1)
