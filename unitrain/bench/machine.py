"""What a machine can do at best."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from unitrain.machine import caches


def best_of(call: Callable[[], Any], wait: Callable[[], None], seconds: float, fewest: int = 3) -> float:
    """Return the shortest time of a call, among those that fit into ``seconds`` and ``fewest`` at least."""
    call()
    wait()
    best, begun, count = float("inf"), time.perf_counter(), 0
    while count < fewest or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        call()
        wait()
        best = min(best, time.perf_counter() - start)
        count += 1
    return best


def memory_bandwidth(threads: int, seconds: float = 0.4, size: int | None = None) -> float:
    """Measure main memory: bytes/s of copy, add and triad on several threads, the best of them.

    Notes
    -----
    McCalpin 1995, Memory bandwidth and machine balance in current high performance computers (STREAM): arrays of
    four times the last cache; bytes are counted as read and written by the program.
    """
    import numpy as np

    count = size or _stream_size()
    a, b, c = (np.full(count, value, np.float32) for value in (1.0, 2.0, 3.0))
    block = 1 << 14  # the triad's product stays in the first cache
    edges = np.linspace(0, count, threads + 1).astype(int)
    parts = [slice(first, last) for first, last in pairwise(edges.tolist())]

    def copy(part: slice) -> None:
        np.copyto(a[part], b[part])

    def add(part: slice) -> None:
        np.add(b[part], c[part], out=a[part])

    def triad(part: slice) -> None:
        product = np.empty(block, np.float32)
        for first in range(part.start, part.stop, block):
            piece = slice(first, min(first + block, part.stop))
            scaled = product[: piece.stop - piece.start]
            np.multiply(c[piece], np.float32(3.0), out=scaled)
            np.add(b[piece], scaled, out=a[piece])

    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for kernel, arrays in ((copy, 2), (add, 3), (triad, 3)):

            def everywhere(kernel: Callable[[slice], None] = kernel) -> None:
                list(pool.map(kernel, parts))

            best = max(best, arrays * 4 * count / best_of(everywhere, lambda: None, seconds / 3))
    return best


def _stream_size() -> int:
    """Return the length of float32 arrays that hold four times the last cache: 16 MiB to 256 MiB."""
    last = list(caches().values())[-1:] or ["16384K"]
    kilobytes = int(last[0].rstrip("KM") or 0) * (1024 if last[0].endswith("M") else 1)
    return min(max(4 * kilobytes * 1024, 16 << 20), 256 << 20) // 4
