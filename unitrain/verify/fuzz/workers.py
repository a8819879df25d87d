"""Cases checked in processes beside each other; what is found comes out in the order of the cases."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread

from unitrain.verify.fuzz.case import VerifyCase
from unitrain.verify.fuzz.check import Failure
from unitrain.verify.fuzz.generate import draw_case

Check = Callable[[VerifyCase], Sequence[Failure]]

# A process ends after so many cases: TensorFlow keeps a few megabytes of each for good.
ROUND = 100
# The kind of failure that ends the process, as a crash inside a framework does. It cannot be shrunk.
DIED = "died"
# Escape sequences of terminals.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def checked(check: Check, case: VerifyCase) -> list[Failure]:
    """Check a case; what is raised is a failure, kept apart by the kind of exception."""
    try:
        return list(check(case))
    except Exception as error:  # a crash is a finding like any other, and the session goes on
        # Frameworks colour their messages, and the file that starts with this one has to be YAML.
        text = " ".join("".join(filter(_printable, _COLOURS.sub("", str(error)))).split())[:300]
        return [Failure(f"error {type(error).__name__}", f"{type(error).__name__}: {text}")]


def each_checked(check: Check, seed: int, first: int, count: int, workers: int = 1) -> Generator[list[Failure]]:
    """Yield what fails in the cases ``first`` to ``count`` - 1 of a seed, one after the other.

    Parameters
    ----------
    check
        Returns why a case fails; can be pickled where there are several workers.
    workers
        Processes that work ahead; a single one is this process.
    """
    if workers == 1:
        for number in range(first, count):
            yield checked(check, draw_case(seed, number))
        return
    while first < count:
        end = min(first + ROUND * workers, count)
        with _pool(workers) as pool:
            found = [pool.submit(_drawn, check, seed, number) for number in range(first, end)]
            try:
                for item in found:
                    yield item.result()
                    first += 1
            except BrokenProcessPool:
                pass
        if first < end:
            # Some case has ended its process, and all are lost that were under way.
            yield _apart(check, seed, first)
            first += 1


def _apart(check: Check, seed: int, number: int) -> list[Failure]:
    """Check a case in a process of its own, which it may end."""
    with _pool(1) as pool:
        try:
            return pool.submit(_drawn, check, seed, number).result()
        except BrokenProcessPool:
            return [Failure(DIED, "the process died: a framework crashed, or memory ran out")]


def _drawn(check: Check, seed: int, number: int) -> list[Failure]:
    return checked(check, draw_case(seed, number))


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of fresh processes; when it is left, what has not begun is dropped."""
    # Small models gain nothing by threads, of which each process would start as many as there are processors.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leave Ctrl-C to the session, which then drops what has not begun; and end when the session is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A worker waits for a next case for ever, since others than the session hold the pipe open too: its fellows.
    Thread(target=_end_with_session, daemon=True).start()


def _end_with_session() -> None:
    session = parent_process()
    assert session is not None
    session.join()
    os._exit(1)


def _printable(character: str) -> bool:
    return character.isprintable() or character.isspace()
