"""The checkpoints of a run: numbered files of which the last ones and the best are kept, written in the background."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unitrain.spec.errors import InputError
from unitrain.train.checkpoint import Checkpoint, read_state

_NAME = re.compile(r"step-(\d+)\.safetensors\Z")


@dataclass(frozen=True)
class Checkpoints:
    """A folder of ``step-<batches since the start>.safetensors``; numbers, not times, say which is newer."""

    path: Path

    def file(self, step: int) -> Path:
        """Return where the checkpoint of a step lies."""
        return self.path / f"step-{step:08d}.safetensors"

    def steps(self) -> list[int]:
        """Return the steps of which there is a checkpoint, ascending."""
        if not self.path.is_dir():
            return []
        found = (_NAME.match(entry.name) for entry in self.path.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> Checkpoint | None:
        """Read the newest checkpoint; None where there is none. Raises as `load`."""
        steps = self.steps()
        return self.load(steps[-1]) if steps else None

    def load(self, step: int) -> Checkpoint:
        """Read the checkpoint of a step.

        Raises
        ------
        InputError
            It is missing or damaged; the hint offers the newest sound one before it.
        """
        try:
            return Checkpoint.load(self.file(step))
        except InputError as error:
            raise InputError(error.problems[0].message, file=str(self.file(step)), hint=self._instead(step)) from None

    def write(self, checkpoint: Checkpoint, keep_last: int) -> None:
        """Write a checkpoint, then remove those that are neither among the last ones nor the best of one of them."""
        checkpoint.save(self.file(checkpoint.state.batches))
        last = self.steps()[-keep_last:]
        kept = {*last, *(self._best_step(step) for step in last)}
        for step in self.steps():
            if step not in kept:
                self.file(step).unlink(missing_ok=True)

    def forget_after(self, step: int) -> None:
        """Remove the checkpoints after a step: a run that goes on from it comes to them anew."""
        for later in self.steps():
            if later > step:
                self.file(later).unlink(missing_ok=True)

    def _best_step(self, step: int) -> int | None:
        try:
            return read_state(self.file(step)).best_step
        except InputError:
            return None  # damaged: nothing goes on from it

    def _instead(self, step: int) -> str:
        """Offer the newest sound checkpoint before a damaged one."""
        for earlier in reversed(self.steps()):
            if earlier < step:
                try:
                    Checkpoint.load(self.file(earlier))
                except InputError:
                    continue
                return f"go on from the one before it: unitrain fit --resume {self.file(earlier)}"
        return "there is no sound checkpoint before it: start the recipe anew"


class BackgroundWriter:
    """Writes checkpoints in a thread, so that steps go on meanwhile; one at a time, in order.

    Parameters
    ----------
    write
        Writes one checkpoint. What it raises is raised by the next call of `keep` or `close`.
    """

    def __init__(self, write: Callable[[Checkpoint], None]) -> None:
        self._write = write
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def keep(self, checkpoint: Checkpoint) -> None:
        """Begin to write a checkpoint, when the one before it is written: memory holds one at most."""
        self.close()
        # No daemon: Python waits for the thread when it ends, and what was begun is written.
        self._thread = threading.Thread(target=self._run, args=(checkpoint,), name="checkpoint writer")
        self._thread.start()

    def close(self) -> None:
        """Wait until all is written. Raises what writing raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, checkpoint: Checkpoint) -> None:
        try:
            self._write(checkpoint)
        except BaseException as error:  # raised again where the run can end with it
            self._error = error
