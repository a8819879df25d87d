"""Threads over parts of a batch: NumPy lets go of the interpreter while it computes, so parts run side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

_Result = TypeVar("_Result")


@cache
def _blas() -> Any:
    """Return the controller of the BLAS libraries in this process; finding them takes a millisecond."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def allowed_threads() -> int:
    """Return how many threads NumPy may use now: those of its BLAS.

    That is what ``OMP_NUM_THREADS`` says, else the processors, or what ``threadpoolctl`` was told last. A BLAS that
    cannot be asked counts as one thread.
    """
    return max((library["num_threads"] or 1 for library in _blas().info()), default=1)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS on one thread, since every part of the batch has a thread of its own."""
    with _blas().limit(limits=1):
        yield


def run_together(tasks: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """Call all, the first in this thread and each other one in its own; results in their order.

    What a task raises is raised here, once all have ended.
    """
    if len(tasks) == 1:
        return [tasks[0]()]
    workers = _workers(len(tasks) - 1, os.getpid())
    others = [workers.submit(task) for task in tasks[1:]]
    try:
        first = tasks[0]()
    finally:
        failures = [other.exception() for other in others]
    for failure in failures:
        if failure is not None:
            raise failure
    return [first, *(other.result() for other in others)]


@cache
def _workers(count: int, process: int) -> ThreadPoolExecutor:
    """Return waiting threads; a forked process has none of its parent's, so it gets its own."""
    return ThreadPoolExecutor(count, thread_name_prefix="unitrain-numpy")
