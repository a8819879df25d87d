"""Spans of time: what was done from when to when, in which thread; kept only while somebody records.

Without a `Recorder` a ``with span(...)`` costs one look at a variable. Any floor of the house may name what it does.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

# What the main thread does where the device, or whoever computes, has nothing to do until the next batches are there.
WAITING = "wait for data"
IMPORTING = "import framework"
STARTING = "start unitrain"

Kind = Literal["phase", "operator", "launch"]


@dataclass(frozen=True)
class Span:
    """Something that was done.

    Parameters
    ----------
    name
        What.
    start
        Seconds on the clock of `time.perf_counter`.
    seconds
        How long.
    thread
        Who did it: a thread's or device's number. Spans of one thread lie beside or inside one another.
    kind
        ``phase`` for a part of a run, ``operator`` for what a framework computed inside of it, ``launch`` for the
        host's part in what a device computes.
    layer
        The layer that an operator belongs to, where that is known.
    """

    name: str
    start: float
    seconds: float
    thread: int
    kind: Kind = "phase"
    layer: str | None = None

    @property
    def end(self) -> float:
        """When it was over."""
        return self.start + self.seconds


@dataclass
class Recorder:
    """Collects spans from all threads; one at a time records, see `recording`.

    Parameters
    ----------
    main
        The thread whose spans are the phases of the run.
    backend, steps
        Who takes training steps, and how many were taken in the phase of a name.
    """

    spans: list[Span] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    main: int = field(default_factory=threading.get_ident)
    backend: str = ""
    steps: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, start: float, kind: Kind = "phase", layer: str | None = None) -> None:
        """Keep a span that ends now, in the thread that calls."""
        self.spans.append(Span(name, start, time.perf_counter() - start, threading.get_ident(), kind, layer))

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Keep what the block takes, also where an error ends it."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, start)


_recorder: Recorder | None = None
_NOTHING = nullcontext()


def active() -> Recorder | None:
    """Return the recorder there is, or None."""
    return _recorder


def span(name: str) -> AbstractContextManager[None]:
    """Record how long a block takes, if anybody records."""
    return _NOTHING if _recorder is None else _recorder.span(name)


@contextmanager
def recording(before: float = 0.0) -> Iterator[Recorder]:
    """Record all spans of this process for a while, which began ``before`` seconds ago.

    Raises
    ------
    RuntimeError
        Somebody records already.
    """
    global _recorder
    if _recorder is not None:
        raise RuntimeError("spans are being recorded already")
    _recorder = recorder = Recorder(started=time.perf_counter() - before)
    if before:
        recorder.add(STARTING, recorder.started)
    try:
        yield recorder
    finally:
        recorder.ended = time.perf_counter()
        _recorder = None


def own_seconds(spans: Sequence[Span]) -> list[float]:
    """Return for each span its seconds without those of the spans inside of it, in the same thread.

    Spans of a thread that overlap without one being inside the other are taken as beside one another: the second
    counts from the end of the first. So the own seconds of a thread's spans add up to the time that they cover.
    """
    own = [0.0] * len(spans)
    by_thread: dict[int, list[int]] = {}
    for index, one in enumerate(spans):
        by_thread.setdefault(one.thread, []).append(index)
    for indices in by_thread.values():
        # Of two that begin together the longer is the outer one.
        indices.sort(key=lambda index: (spans[index].start, -spans[index].seconds))
        open_: list[int] = []
        clock = float("-inf")  # up to where time has been given to somebody
        for index in [*indices, -1]:
            start = float("inf") if index < 0 else spans[index].start
            while open_ and spans[open_[-1]].end <= start:
                done = spans[open_[-1]].end
                own[open_.pop()] += max(0.0, done - clock)
                clock = max(clock, done)
            if index < 0:
                break
            if open_:
                own[open_[-1]] += max(0.0, start - clock)
            clock = max(clock, start)
            open_.append(index)
    return own


def covered_seconds(spans: Sequence[Span]) -> float:
    """Return how long at least one of the spans was under way, whichever its thread."""
    total, end = 0.0, float("-inf")
    for one in sorted(spans, key=lambda one: one.start):
        total += max(0.0, one.end - max(one.start, end))
        end = max(end, one.end)
    return total


def process_seconds() -> float:
    """Return how long this process has been there, to a hundredth of a second; 0 where the system does not tell.

    From ``/proc``: field 22 of ``stat`` is the start in ticks after the system's; see ``man 5 proc``.
    """
    try:
        with open("/proc/self/stat", encoding="ascii") as stat, open("/proc/uptime", encoding="ascii") as uptime:
            ticks = int(stat.read().rpartition(")")[2].split()[19])
            return max(0.0, float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0
