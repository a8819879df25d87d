"""Many pictures at once, decoded by processes beside this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from unitrain.data.decode import Channels, Pixels, Size, decode
from unitrain.spec.errors import InputError

_PACKAGE = Path(__file__).resolve().parents[2]

Problem = InputError | tuple[int, int, int]


class Decoders:
    """Decodes pictures of one shape, in so many processes; in this one for 0.

    What comes out does not depend on their number. They are started when they are first needed, and end with this
    object or with the process that holds it.

    Parameters
    ----------
    workers
        Number of processes.
    channels, size
        As for `decode.decode`.
    """

    def __init__(self, workers: int, channels: Channels, size: Size | None) -> None:
        self._count, self._channels, self._size = workers, channels, size
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: ThreadPoolExecutor | None = None
        # The trainer's own thread may ask while the one that reads ahead does.
        self._asking = threading.Lock()

    def decode(self, paths: Sequence[str], shape: tuple[int, ...]) -> tuple[Pixels, dict[int, Problem]]:
        """Decode pictures of ``shape``.

        Returns
        -------
        pixels
            Uint8 ``[n, height, width, channel]``, any content where there is a problem.
        problems
            Position to the error of a picture that does not decode, or the shape of one that has another.
        """
        pixels = np.empty((len(paths), *shape), np.uint8)
        if self._count == 0 or len(paths) < 2:
            return pixels, self._here(paths, pixels)
        with self._asking:
            self._start()
            assert self._threads is not None
            ends = np.linspace(0, len(paths), len(self._processes) + 1).astype(int).tolist()
            parts = [slice(first, end) for first, end in pairwise(ends)]
            asked = self._threads.map(
                lambda process, part: self._ask(process, paths[part], pixels[part]), self._processes, parts
            )
            problems: dict[int, Problem] = {}
            for part, found in zip(parts, asked, strict=True):
                problems |= {part.start + position: problem for position, problem in found.items()}
        return pixels, problems

    def _here(self, paths: Sequence[str], pixels: Pixels) -> dict[int, Problem]:
        problems: dict[int, Problem] = {}
        for position, path in enumerate(paths):
            try:
                image = decode(Path(path), self._channels, self._size)
            except InputError as error:
                problems[position] = error
                continue
            if image.shape == pixels.shape[1:]:
                pixels[position] = image
            else:
                problems[position] = (image.shape[0], image.shape[1], image.shape[2])
        return problems

    def _start(self) -> None:
        if self._processes:
            return
        search = os.pathsep.join(filter(None, [str(_PACKAGE), os.environ.get("PYTHONPATH", "")]))
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "unitrain.data.decode"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": search},
                start_new_session=True,  # Ctrl-C is for the run, which ends them
            )
            for _ in range(self._count)
        ]
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="decode")
        weakref.finalize(self, _stop, self._processes, self._threads)

    def _ask(self, process: subprocess.Popen[bytes], paths: Sequence[str], pixels: Pixels) -> dict[int, Problem]:
        problems: dict[int, Problem] = {}
        if not paths:
            return problems
        question = {"paths": list(paths), "channels": self._channels, "size": self._size, "shape": pixels.shape[1:]}
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            for position, path in enumerate(paths):
                head = json.loads(process.stdout.readline())
                if "problem" in head:
                    problems[position] = InputError(head["problem"], file=path)
                elif tuple(head["shape"]) != pixels.shape[1:]:
                    problems[position] = (head["shape"][0], head["shape"][1], head["shape"][2])
                else:
                    _fill(process.stdout, pixels[position])
        except (OSError, ValueError):  # a broken pipe, or half an answer
            raise InputError(
                "a process that decodes images has ended",
                field=("workers",),
                found=f"exit code {process.poll()}",
                hint="fewer workers need less memory; `workers: 0` decodes in the run's own process",
            ) from None
        return problems


def _fill(stream: IO[bytes], pixels: Pixels) -> None:
    target: Any = pixels.reshape(-1).data
    while target:
        count: int = stream.readinto(target)  # type: ignore[attr-defined]  # typeshed's IO lacks it; a pipe has it
        if not count:
            raise ValueError("half a picture")
        target = target[count:]


def _stop(processes: Sequence[subprocess.Popen[bytes]], threads: ThreadPoolExecutor) -> None:
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        process.wait()
    threads.shutdown(wait=False)
