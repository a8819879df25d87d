"""Kills runs, real processes with a real SIGKILL, at random instants or at every write, and lets them go on.

As a program: ``killing.py FOLDER --kills N --seed N --backend NAME``, or ``--writes`` for every write once, with
``--every`` for some of them. How far it is, it tells on standard error. It forks, so it runs in a process of its own
that has imported what a run needs and started no thread. TensorFlow does not live through that: its runs are processes
from the start, and are killed from when they have begun to train.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from survival.runs import RECIPE, differences

# A run without the extra for reports writes none, which would take most of its time.
WITHOUT_REPORT = "import sys; sys.modules['jinja2'] = None; from unitrain.cli.main import main; main()"


class Survival:
    """One recipe, its uninterrupted run, and runs that are killed."""

    def __init__(self, folder: Path, backend: str, epochs: int) -> None:
        self.folder, self.backend = folder, backend
        self.recipe = folder / "iris.yaml"
        self.recipe.write_text(RECIPE.replace("epochs: 12", f"epochs: {epochs}"))
        self.whole = folder / "whole"
        started = time.monotonic()
        process = self.start(self.whole)
        while not (self.whole / "recipe.yaml").is_file() and time.monotonic() < started + 120:
            time.sleep(0.002)
        self.begun = time.monotonic() - started
        code = self.wait(process)
        self.seconds = time.monotonic() - started
        if code != 0:
            raise SystemExit(f"the uninterrupted run ended with {code}")

    def start(self, run: Path, before: Callable[[], None] = lambda: None) -> int:
        """Begin a run, or go on with it, in a child; return its process id. A run that has its result is left alone."""
        arguments = ["fit", "--resume", str(run)]
        if not (run / "recipe.yaml").is_file():
            arguments = ["fit", str(self.recipe), "--backend", self.backend, "--out", str(run)]
        process = os.fork()
        if process:
            return process
        if (run / "result.json").is_file():
            os._exit(0)  # killed while its report was written
        try:
            with open(self.folder / "output", "a") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            if self.backend == "keras":
                os.execv(sys.executable, [sys.executable, "-c", WITHOUT_REPORT, *arguments])
            from unitrain.cli.main import main

            before()
            main(arguments)
        except SystemExit as end:
            os._exit(int(end.code or 0))
        except BaseException:
            traceback.print_exc()
        os._exit(99)

    @staticmethod
    def wait(process: int) -> int:
        """Wait for a child: its exit code, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def check(self, run: Path, code: int, what: str) -> None:
        """See that a run has ended well and as the uninterrupted one."""
        if code != 0:
            raise SystemExit(f"{what}: ended with {code}\n{(self.folder / 'output').read_text()[-2000:]}")
        different = differences(self.whole, run)
        if different:
            raise SystemExit(f"{what}: differs from the uninterrupted run in {', '.join(different)}")
        leftovers = [str(path) for path in run.rglob("*.tmp")]
        if leftovers:
            raise SystemExit(f"{what}: left {leftovers}")

    def within(self, run: Path, share: float) -> tuple[int, float]:
        """Begin a run, or go on with it, and kill it at a share of the time that one takes: exit code and seconds."""
        started = time.monotonic()
        process = self.start(run)
        instant = self.begun + share * max(self.seconds - self.begun, 0.0)
        while time.monotonic() - started < instant:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status), time.monotonic() - started
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)
        return self.wait(process), time.monotonic() - started

    def at_random(self, kills: int, seed: int) -> str:
        """Kill at random instants until there were so many; every run goes on to its end."""
        generator = random.Random(seed)
        killed = runs = 0
        while killed < kills:
            runs += 1
            run = self.folder / f"random-{runs}"
            code, taken = self.within(run, generator.random())
            if code == 0:
                self.seconds = taken  # the machine is faster now than it was
            while code == -signal.SIGKILL:
                killed += 1
                code, _ = self.within(run, generator.random())
            self.check(run, code, f"run {runs}, seed {seed}")
            _tell(f"{killed} of {kills} kills")
        return f"{killed} kills at random instants in {runs} runs"

    def at_writes(self, most: int | None, every: int = 1) -> str:
        """Kill before each call that writes, syncs, renames or removes, or each ``every``-th; then go on."""
        number = killed = 0
        while most is None or killed < most:
            run = self.folder / f"write-{number}"
            code = self.wait(self.start(run, lambda count=number: _die_before(count)))
            if code != -signal.SIGKILL:
                break
            self.check(run, self.wait(self.start(run)), f"killed before write {number}")
            number, killed = number + every, killed + 1
            _tell(f"killed before write {number - every}")
        return f"killed before each of {number} writes" if every == 1 else f"killed before {killed} of {number} writes"


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _die_before(number: int) -> None:
    """Let this process kill itself before its call of this number that changes a file."""
    left = number

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **options: object) -> object:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return call(*arguments, **options)

        return wrapped

    for name in ("fsync", "replace", "unlink", "mkdir"):
        setattr(os, name, dying(getattr(os, name)))
    import safetensors.numpy

    safetensors.numpy.save_file = dying(safetensors.numpy.save_file)


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--writes", type=int, default=0, help="so many writes; -1 for all")
    parser.add_argument("--every", type=int, default=1, help="of so many writes, one")
    chosen = parser.parse_args()
    # A run without the extra for reports writes none, which would take most of its time.
    sys.modules["jinja2"] = None  # type: ignore[assignment]  # as Python marks what cannot be imported
    # Imported once, here, and not in every child.
    import sklearn.datasets  # noqa: F401

    import unitrain.train.fit  # noqa: F401

    if chosen.backend == "torch":
        import torch  # noqa: F401
    survival = Survival(chosen.folder, chosen.backend, chosen.epochs)
    if chosen.kills:
        print(survival.at_random(chosen.kills, chosen.seed))
    if chosen.writes:
        print(survival.at_writes(None if chosen.writes < 0 else chosen.writes, chosen.every))


if __name__ == "__main__":
    main()
