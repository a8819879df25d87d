"""The files of a profile: a trace for https://ui.perfetto.dev or chrome://tracing, and a summary."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unitrain.spans import Recorder, Span
from unitrain.train.profile import Profile
from unitrain.weights.store import write_text

# A viewer becomes slow with more; the costs are of all.
_SHOWN_OPERATORS = 50_000


def write_profile(folder: Path, recorder: Recorder, profile: Profile) -> None:
    """Write ``trace.json`` and ``summary.json`` into a folder, which is made."""
    folder.mkdir(exist_ok=True)
    write_text(folder / "trace.json", json.dumps(trace(recorder)) + "\n")
    write_text(folder / "summary.json", json.dumps(asdict(profile), indent=2) + "\n")


def trace(recorder: Recorder) -> dict[str, Any]:
    """Return the spans in the trace event format.

    Complete events (``ph: X``), microseconds from the start of the recording; threads are numbered anew, the main one
    first. Trace Event Format, Google 2016, "Complete Events" and "Metadata Events".
    """
    phases = [one for one in recorder.spans if one.kind == "phase"]
    inside = sorted((one for one in recorder.spans if one.kind != "phase"), key=lambda one: one.start)
    shown: Sequence[Span] = [*phases, *inside[:_SHOWN_OPERATORS]]
    process = os.getpid()
    numbers = {recorder.main: 0}
    for one in shown:
        numbers.setdefault(one.thread, len(numbers))
    # Threads have addresses; devices and a profiler's own lines have numbers below zero.
    names = {
        thread: "main thread" if number == 0 else f"{'thread' if thread >= 0 else 'profiler'} {number}"
        for thread, number in numbers.items()
    }
    about = [
        {"name": "process_name", "ph": "M", "pid": process, "tid": 0, "args": {"name": "unitrain fit"}},
        *(
            {"name": "thread_name", "ph": "M", "pid": process, "tid": number, "args": {"name": names[thread]}}
            for thread, number in numbers.items()
        ),
    ]
    events = [
        {
            "name": one.name,
            "cat": one.kind,
            "ph": "X",
            "ts": round(1e6 * (one.start - recorder.started), 3),
            "dur": round(1e6 * one.seconds, 3),
            "pid": process,
            "tid": numbers[one.thread],
            **({"args": {"layer": one.layer}} if one.layer else {}),
        }
        for one in sorted(shown, key=lambda one: one.start)
    ]
    return {"displayTimeUnit": "ms", "traceEvents": [*about, *events]}
