"""Contenders in processes of their own, as their users would run them.

What one side asks of its process, the other would have too: unitrain tells the C library to keep freed memory, which
makes a torch loop by hand faster as well, and frameworks share pools of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection

from comparison import Run

# What importing a framework and tracing an epoch may take at most.
READY_SECONDS = 600.0
END_SECONDS = 10.0


@contextmanager
def apart(make: Callable[[], Run]) -> Iterator[Run]:
    """Build what is timed in a fresh process, and give what runs it there once and waits for it.

    Building goes on beside others until the first run waits for it.

    Parameters
    ----------
    make
        A function that can be sent: of a module, or a `functools.partial` of one.

    Raises
    ------
    RuntimeError
        The process ended, or built nothing in `READY_SECONDS`; it has said why.
    """
    context = get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=_serve, args=(make, far), daemon=True)
    process.start()
    far.close()

    ready = False

    def run() -> None:
        nonlocal ready
        try:
            if not ready:
                if not near.poll(READY_SECONDS):
                    raise RuntimeError(f"{make} was not ready after {READY_SECONDS:.0f} seconds")
                ready = near.recv()
            near.send(True)
            near.recv()
        except (EOFError, OSError):
            process.join(END_SECONDS)
            raise RuntimeError(f"the process of {make} ended with {process.exitcode}") from None

    try:
        yield run
    finally:
        near.close()
        process.join(END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _serve(make: Callable[[], Run], pipe: Connection) -> None:
    """Build, say so, and run once for each message, until the pipe is closed."""
    run = make()
    pipe.send(True)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        run()
        pipe.send(True)
