"""A whole study: variants made, sent through the gates, judged, timed together, and one of them recommended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from unitrain.backends.onnx.anatomy import macs, sizes, write_model
from unitrain.backends.onnx.deployed import Deployed, deploy
from unitrain.backends.versions import versions
from unitrain.machine import cpu_line, describe
from unitrain.spec.errors import InputError
from unitrain.spec.study import StudySpec
from unitrain.study.fresh import load_fresh
from unitrain.study.gates import Passage, pass_gates
from unitrain.study.latency import TWINS, loaded, time_all
from unitrain.study.progress import Progress
from unitrain.study.quality import Quality, judge
from unitrain.study.recommend import recommend
from unitrain.study.results import BASELINE, OFFLINE, SINGLE, Row, Size, Study
from unitrain.study.runtimes import Runtime, ready
from unitrain.study.saturation import check_saturation
from unitrain.study.splits import Samples
from unitrain.study.statistics import holm
from unitrain.study.subject import Subject, shapes_of
from unitrain.study.variants import Variant
from unitrain.study.workshop import Built, Workshop, predict
from unitrain.timing import TWIN, Contender
from unitrain.weights.random import stream

Array = npt.NDArray[Any]
Outputs = dict[str, Array]

# Seconds of inferences whose processor time is counted.
_CPU_SECONDS = 0.2


@dataclass
class Entry:
    """A variant on its way: its row, and its file if it came so far."""

    variant: Variant
    row: Row
    path: Path | None = None
    built: Built | None = None
    deployed: Deployed | None = None


def study(
    subject: Subject,
    chosen: Sequence[Variant],
    runtimes: Sequence[Runtime],
    options: StudySpec,
    folder: Path,
    seed: int,
    request: Mapping[str, Any],
    progress: Progress,
) -> Study:
    """Study a model.

    Parameters
    ----------
    chosen
        The variants; the first is the float model.
    runtimes
        Other runtimes that are timed beside them.
    folder
        Where each variant's file goes, an empty folder.
    request
        What is needed to do the study again; kept with it.

    Raises
    ------
    InputError
        The float model itself does not come through the gates.
    """
    started = time.perf_counter()
    machine = {**describe(), "cpu flags": cpu_line("flags")}
    workshop = Workshop(subject, options, seed, progress)
    try:
        entries = _make(workshop, chosen, folder, progress)
        _judge_all(workshop, entries, progress)
        if options.saturation_check and not subject.speed_only:
            made = [(entry.row, entry.built.model) for entry in entries if entry.deployed and entry.built]
            check_saturation(subject, made, progress)
        measured = [entry for entry in entries if entry.deployed is not None and not entry.row.failure]
        others = _runtime_rows(runtimes, subject)
        bands, rounds = _time(workshop, measured, others, progress)
        _weigh(workshop, measured, progress)
        rows = [*(entry.row for entry in entries), *(row for _, row in others)]
        candidates = {entry.variant.name for entry in entries if entry.variant.candidate}
        name, sentence = recommend(rows, candidates, bands[SINGLE], speed_only=subject.speed_only)
        measure = next((row.test.measure for row in rows if row.test), "")
        return Study(
            subject.name,
            str(subject.source),
            subject.kind,
            measure,
            options.model_dump(mode="json"),
            seed,
            rows,
            {"hashes": dict(subject.samples.hashes), "counts": dict(subject.samples.counts)},
            workshop.sensitivity,
            bands,
            rounds,
            name,
            sentence,
            machine,
            versions(dict.fromkeys(("numpy", "onnx", *(runtime.backend for runtime in runtimes)))),
            request,
            [*subject.notes, *subject.samples.notes],
            time.perf_counter() - started,
        )
    finally:
        workshop.close()


def _make(workshop: Workshop, chosen: Sequence[Variant], folder: Path, progress: Progress) -> list[Entry]:
    """Build every variant and send it through the gates."""
    subject, threads = workshop.subject, workshop.options.threads
    feeds = subject.feeds(subject.fixed_batch or 1)
    entries: list[Entry] = []
    reference: Outputs = {}
    float_bytes = 0
    progress.begin("making variants", len(chosen))
    for variant in chosen:
        progress.tell(variant.name)
        entry = Entry(variant, Row(variant.name, variant.what))
        entries.append(entry)
        try:
            entry.built = variant.build(workshop)
        except InputError as error:
            entry.row.failure = error.problems[0].message
        except Exception as error:  # other people's files make other people's converters fail in any way
            entry.row.failure = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if entry.built is not None:
            # Notes of what was repaired are the same for most variants: they stand once, with the study.
            entry.row.notes = list(entry.built.notes)
            # Levels of optimisation share the float model's file.
            same = entry.built.model is subject.model
            entry.path = folder / f"{BASELINE if same else variant.name}.onnx"
            if not entry.path.exists():
                write_model(entry.built.model, entry.path)
            passage = pass_gates(
                entry.path, entry.built.level, variant.expected, feeds, reference, float_bytes, threads
            )
            _enter(entry, passage)
            if variant.name == BASELINE and entry.deployed is not None:
                reference, float_bytes = entry.deployed.run(feeds), entry.path.stat().st_size
        if variant.name == BASELINE and entry.row.failure:
            raise InputError(
                f"the float model does not come through the gates: {entry.row.failure}",
                file=str(subject.source),
                found=f"inputs {shapes_of(feeds)}",
            )
        progress.step()
    return entries


def _enter(entry: Entry, passage: Passage) -> None:
    row = entry.row
    row.gates, row.coverage, row.failure = passage.found, passage.coverage, passage.failure
    row.file = "" if entry.path is None else entry.path.name
    entry.deployed = passage.deployed


def _judge_all(workshop: Workshop, entries: Sequence[Entry], progress: Progress) -> None:
    """Judge what runs, on selection and test samples; correct the tests for their number."""
    subject = workshop.subject
    runnable = [entry for entry in entries if entry.deployed is not None]
    if subject.speed_only:
        return
    progress.begin("measuring quality", len(runnable))
    references: dict[str, Outputs] = {}
    for entry in runnable:
        progress.tell(entry.variant.name)
        judged: dict[str, Quality] = {}
        for part in ("selection", "test"):
            samples: Samples = getattr(subject.samples, part)
            assert entry.deployed is not None
            found = predict(entry.deployed, samples, subject.fixed_batch)
            reference = references.setdefault(part, found)
            generator = stream(workshop.seed, "study", "bootstrap", part)
            judged[part] = judge(subject.task, samples, found, reference, workshop.options.margin, generator)
            if entry.variant.name == BASELINE:
                judged[part] = replace(
                    judged[part], gain=None, verdict=None, p_value=None, agreement=None, signal_to_noise=None
                )
        entry.row.selection, entry.row.test = judged["selection"], judged["test"]
        progress.step()
    tested = [entry.row for entry in runnable if entry.row.test is not None and entry.row.test.p_value is not None]
    corrected = holm([row.test.p_value for row in tested if row.test and row.test.p_value is not None])
    for row, value in zip(tested, corrected, strict=True):
        assert row.test is not None
        row.test = replace(row.test, corrected=value)


def _time(
    workshop: Workshop, entries: Sequence[Entry], others: Sequence[tuple[Runtime, Row]], progress: Progress
) -> tuple[dict[str, float], dict[str, int]]:
    """Time what came through the gates, in both scenarios; return the A/A bands and the rounds."""
    subject, options = workshop.subject, workshop.options
    scenarios = {SINGLE: 1, OFFLINE: options.batch}
    if subject.fixed_batch is not None:
        scenarios = {SINGLE: subject.fixed_batch}
    base = next(entry for entry in entries if entry.variant.name == BASELINE)
    twins = [f"{TWIN} {number + 1}" for number in range(TWINS)]
    bands, rounds = {}, {}
    for scenario, batch in scenarios.items():
        feeds = subject.feeds(batch)
        baseline, *same = (_contender(base, name, options.threads, feeds) for name in (BASELINE, *twins))
        rest = [_contender(entry, entry.row.name, options.threads, feeds) for entry in entries if entry is not base]
        if others and base.deployed is not None:
            rest += _prepared(others, subject, options.threads, feeds, base.deployed.run(feeds), progress)
        progress.begin(f"timing, {scenario}", options.rounds)
        generator = stream(workshop.seed, "study", "timing", scenario)
        timed = time_all(baseline, same, rest, batch, options.rounds, generator, progress.at)
        bands[scenario], rounds[scenario] = timed.band, timed.rounds
        for entry in entries:
            entry.row.latency[scenario] = timed.latencies[entry.variant.name]
        for runtime, row in others:
            if runtime.name in timed.latencies:
                row.latency[scenario] = timed.latencies[runtime.name]
    return bands, rounds


def _runtime_rows(runtimes: Sequence[Runtime], subject: Subject) -> list[tuple[Runtime, Row]]:
    rows = [(runtime, Row(runtime.name, runtime.what)) for runtime in runtimes]
    if subject.trained is None:
        for _, row in rows:
            row.failure = "it runs the graph of a trained run, and this is an ONNX file"
    return rows


def _prepared(
    others: Sequence[tuple[Runtime, Row]],
    subject: Subject,
    threads: int,
    feeds: Mapping[str, Array],
    reference: Outputs,
    progress: Progress,
) -> list[Contender]:
    """Prepare the other runtimes for one scenario; what fails is a row with its reason."""
    contenders = []
    progress.begin("preparing other runtimes", len(others))
    for runtime, row in others:
        if row.failure or subject.trained is None:
            continue
        progress.tell(runtime.name)
        try:
            contender = ready(runtime, subject.trained, threads, feeds, reference, row)
        except InputError as error:
            row.failure = error.problems[0].message
        except Exception as error:  # a framework's compiler fails in any way
            row.failure = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        else:
            contenders += [] if contender is None else [contender]
        progress.step()
    return contenders


def _contender(entry: Entry, name: str, threads: int, feeds: Mapping[str, Array]) -> Contender:
    assert entry.path is not None
    assert entry.built is not None
    return loaded(name, partial(deploy, entry.path, threads=threads, level=entry.built.level), feeds)


def _weigh(workshop: Workshop, entries: Sequence[Entry], progress: Progress) -> None:
    """Measure size, memory, loading and processor time of what came through the gates."""
    subject = workshop.subject
    feeds = subject.feeds(subject.fixed_batch or 1)
    work: dict[str, int | None] = {}
    progress.begin("weighing", len(entries))
    for entry in entries:
        progress.tell(entry.variant.name)
        assert entry.path is not None
        assert entry.built is not None
        assert entry.deployed is not None
        source = entry.built.source
        if source not in work:
            counted = macs(workshop.floats[source], feeds)
            work[source] = None if counted is None else counted // (subject.fixed_batch or 1)
        found = sizes(entry.path)
        entry.row.sha256 = found.sha256
        entry.row.size = Size(found.file, found.compressed, found.weights, found.numbers, found.non_zeros, work[source])
        entry.row.cpu_seconds = _cpu_seconds(entry.deployed, feeds) / (subject.fixed_batch or 1)
        fresh = load_fresh(entry.path, entry.built.level, workshop.options.threads, feeds)
        if fresh is not None:
            entry.row.load_seconds, entry.row.peak_memory = fresh.load_seconds, fresh.peak_memory
        progress.step()


def _cpu_seconds(deployed: Deployed, feeds: Mapping[str, Array]) -> float:
    """Return processor seconds a call, all threads together."""
    begun, start, calls = time.perf_counter(), time.process_time(), 0
    while calls < 3 or time.perf_counter() - begun < _CPU_SECONDS:
        deployed.run(feeds)
        calls += 1
    return (time.process_time() - start) / calls
