"""A session of fuzzing: cases drawn and checked one after another, in a folder from which it goes on another time."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from unitrain.spec.errors import InputError
from unitrain.spec.yaml import read_yaml
from unitrain.verify.fuzz.case import VerifyCase, read_case
from unitrain.verify.fuzz.check import Failure
from unitrain.verify.fuzz.coverage import Coverage, possible
from unitrain.verify.fuzz.generate import draw_case
from unitrain.verify.fuzz.shrink import shrink
from unitrain.verify.fuzz.workers import DIED, Check, checked, each_checked
from unitrain.weights.store import write_text

Again = Callable[[VerifyCase, Failure], bool]

STATE = "state.json"
# To be counted up when the fuzzer draws other cases, or its state file holds something else.
VERSION = 1
# A failure is shrunk for this long at most, in minutes, and by so many tries.
SHRINK_MINUTES, SHRINK_TRIES = 5.0, 500


@dataclass(frozen=True)
class Found:
    """A case that failed, shrunk.

    Parameters
    ----------
    number
        Of the case.
    kind, message
        As the shrunk case fails.
    file
        Where the shrunk case is written, in the session's folder.
    layers
        Layers of the case as drawn, and as shrunk.
    finished
        False where time was up before the smallest case was found; the next call goes on with it.
    """

    number: int
    kind: str
    message: str
    file: str
    layers: tuple[int, int]
    finished: bool = True


@dataclass(frozen=True)
class Progress:
    """How far a session is: cases done and wanted, failures so far, what is being done, seconds spent in this call."""

    done: int
    count: int
    failures: int
    doing: str
    seconds: float


Observer = Callable[[Progress], None]


@dataclass
class FuzzResult:
    """What a session has found, earlier calls included.

    Parameters
    ----------
    seed, count
        The cases wanted: numbers 0 to ``count`` - 1 of a seed.
    done
        How many have been checked; the next call goes on there.
    failures
        The cases that failed.
    coverage
        What the cases checked have covered.
    seconds
        Time spent checking and shrinking.
    """

    seed: int
    count: int
    done: int = 0
    failures: list[Found] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether all cases wanted have been checked."""
        return self.done >= self.count

    @property
    def passed(self) -> bool:
        """Whether no case failed."""
        return not self.failures

    def to_plain(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "version": version(),
            "seed": self.seed,
            "done": self.done,
            "seconds": round(self.seconds, 3),
            "failures": [asdict(found) for found in self.failures],
            "coverage": self.coverage.to_plain(),
        }

    def lines(self) -> list[str]:
        """Return a few lines that say what was found."""
        lines = [f"{self.done} of {self.count} cases of seed {self.seed}, {len(self.failures)} failed"]
        for found in self.failures:
            drawn, left = found.layers
            lines.append(f"  case {found.number}: {found.message}")
            lines.append(f"    {drawn} layers shrunk to {left}{'' if found.finished else ' so far'}, in {found.file}")
        return lines + self.coverage.lines()


def run_fuzz(
    count: int,
    seed: int,
    minutes: float | None,
    folder: Path,
    check: Check,
    observer: Observer = lambda progress: None,
    *,
    again: Again | None = None,
    command: str = "unitrain verify {file}",
    shrink_minutes: float = SHRINK_MINUTES,
    tries: int = SHRINK_TRIES,
    workers: int = 1,
) -> FuzzResult:
    """Draw cases, check them, and shrink those that fail; begin where the folder says that an earlier call stopped.

    Parameters
    ----------
    count
        Cases of the session in all, those of earlier calls included.
    seed
        Which cases: number n of a seed is always the same.
    minutes
        Stop after this time with what has been done; a shrinking that is under way goes on in the next call.
    folder
        Holds ``state.json`` and ``failure-<number>.yaml``; made where it is missing.
    check
        Returns why a case fails, nothing when it passes. What it raises is a failure of kind ``error``.
    observer
        Told before and after each case, and while one is shrunk.
    again
        Tells whether a simpler case fails as the drawn one did, and raises nothing; by default ``check`` finds a
        failure of the same kind.
    command
        The line that shows a failure again, with ``{file}`` for its path; it stands at the head of the file.
    shrink_minutes, tries
        Time for shrinking one failure, and simpler cases to try.
    workers
        Processes that check cases. What is found is the same for any number; ``check`` goes to all of several, pickled.

    Raises
    ------
    InputError
        The folder holds a session of another seed, or something else.
    """
    result = _restored(folder, seed, count)
    session = _Session(result, folder, check, observer, again, command, shrink_minutes, tries, workers, minutes)
    session.run()
    return result


@dataclass
class _Session:
    """A call of `run_fuzz`; arguments as there."""

    result: FuzzResult
    folder: Path
    check: Check
    observer: Observer
    again: Again | None
    command: str
    shrink_minutes: float
    tries: int
    workers: int
    minutes: float | None

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.before = self.result.seconds
        self.deadline = None if self.minutes is None else self.started + 60.0 * self.minutes

    def run(self) -> None:
        """Go on until all is done or time is up."""
        for place, found in enumerate(self.result.failures):
            if not found.finished and self._in_time():
                case = read_case(read_yaml(self.folder / found.file))
                failure = Failure(found.kind, found.message)
                self.result.failures[place] = self._shrunk(found.number, case, failure, found.layers[0])
                self._keep()
        result = self.result
        cases = each_checked(self.check, result.seed, result.done, result.count, self.workers)
        with closing(cases):
            while not result.complete and self._in_time():
                self._tell(f"case {result.done}")
                self._one(result.done, next(cases))

    def _one(self, number: int, failures: list[Failure]) -> None:
        case = draw_case(self.result.seed, number)
        if failures:
            layers = len(case.graph().nodes)
            self.result.failures.append(self._shrunk(number, case, failures[0], layers))
        self.result.coverage.add(case)
        self.result.done = number + 1
        self._keep()
        self._tell(f"case {number} {'failed' if failures else 'passed'}")

    def _shrunk(self, number: int, case: VerifyCase, failure: Failure, layers: int) -> Found:
        """Shrink a failing case and write it down; ``layers`` it had when it was drawn."""
        limit = time.monotonic() + 60.0 * self.shrink_minutes
        smallest = shrink(
            case,
            lambda candidate: (self.again or self._fails)(candidate, failure),
            deadline=limit if self.deadline is None else min(limit, self.deadline),
            tries=0 if failure.kind == DIED else self.tries,
            tell=lambda text: self._tell(f"case {number} failed, shrinking: {text}"),
        )
        finished = self._in_time()
        if smallest != case:
            # The smallest may fail in other words: another layer's name, another ratio.
            same = (found for found in checked(self.check, smallest) if found.kind == failure.kind)
            failure = next(same, failure)
        path = self.folder / f"failure-{number}.yaml"
        write_text(path, _failure_file(smallest, failure, path, self.result.seed, number, self.command))
        left = len(smallest.graph().nodes)
        return Found(number, failure.kind, failure.message, path.name, (layers, left), finished)

    def _fails(self, case: VerifyCase, failure: Failure) -> bool:
        return any(found.kind == failure.kind for found in checked(self.check, case))

    def _in_time(self) -> bool:
        return self.deadline is None or time.monotonic() < self.deadline

    def _keep(self) -> None:
        self.result.seconds = self.before + time.monotonic() - self.started
        write_text(self.folder / STATE, json.dumps(self.result.to_plain(), indent=1) + "\n")

    def _tell(self, doing: str) -> None:
        result, seconds = self.result, time.monotonic() - self.started
        self.observer(Progress(result.done, result.count, len(result.failures), doing, seconds))


@cache
def version() -> str:
    """Return what tells this fuzzer from others, which draw other cases: a new layer or option makes another one."""
    labels = [label for kind in possible().values() for label in sorted(kind)]
    return f"{VERSION}-{blake2b(chr(10).join(labels).encode(), digest_size=6).hexdigest()}"


def _failure_file(case: VerifyCase, failure: Failure, path: Path, seed: int, number: int, command: str) -> str:
    """Write a shrunk case with the reason and the command that shows it again at its head."""
    lines = [
        f"# {' '.join(failure.message.split())}",
        f"# case {number} of seed {seed}, shrunk; to see it again:",
        f"#   {command.format(file=shlex.quote(str(path)))}",
    ]
    return "\n".join(lines) + "\n" + case.written()


def _restored(folder: Path, seed: int, count: int) -> FuzzResult:
    """Read the state of an earlier call; begin anew in an empty folder. Raises `InputError`."""
    path = folder / STATE
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                "the folder holds something other than a session of fuzzing",
                file=str(folder),
                allowed="an empty or new folder, or one of an earlier session",
            )
        folder.mkdir(parents=True, exist_ok=True)
        return FuzzResult(seed, count)
    try:
        plain: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        written, known = str(plain["version"]), int(plain["seed"])
        result = FuzzResult(
            seed,
            count,
            int(plain["done"]),
            [Found(**{**found, "layers": tuple(found["layers"])}) for found in plain["failures"]],
            Coverage.from_plain(plain["coverage"]),
            float(plain["seconds"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError("not the state of a session of fuzzing", file=str(path)) from None
    if written != version():
        raise InputError(
            "the session is of another version of the fuzzer, which draws other cases",
            file=str(path),
            field=("version",),
            found=written,
            allowed=version(),
            hint="take another folder",
        )
    if known != seed:
        raise InputError(
            "the folder holds a session of another seed",
            file=str(path),
            field=("seed",),
            found=str(known),
            allowed=str(seed),
            hint=f"take another folder, or --seed {known}",
        )
    return result
