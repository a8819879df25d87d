"""Ctrl-C and SIGTERM as a request that the trainer sees at the next block's edge."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def interruptible() -> Iterator[Callable[[], str | None]]:
    """Turn the first Ctrl-C or SIGTERM into a request that `Trainer` sees; the second acts as usual.

    Gives a function that returns ``interrupted`` after Ctrl-C, ``terminated`` after SIGTERM, else None.
    """
    asked: str | None = None
    previous: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = "interrupted" if number == signal.SIGINT else "terminated"
        signal.signal(number, previous[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, ask)
    except ValueError:
        # Signals are the main thread's; a run in another thread is stopped by its owner.
        yield lambda: None
        return
    try:
        yield lambda: asked
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)
