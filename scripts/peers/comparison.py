"""Comparisons of ours with theirs: declared, chosen by a pattern, timed turn by turn, and written as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

Run = Callable[[], object]
# Builds what is timed, here or elsewhere, and takes it down in the end.
Start = Callable[[Callable[[], Run]], AbstractContextManager[Run]]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
# Tables of their own, of nothing that is timed turn by turn.
OTHER_TABLES = ("memory", "start")
# What can be named on the command line beside parts of rows' names.
GROUPS = ("torch", "lightning", "keras", "numpy", "onnx", *OTHER_TABLES)
HEADER = [
    "| ours | theirs | ours a step | theirs a step | ratio, median of the rounds | of the minima | at most | |",
    "|---|---|---|---|---|---|---|---|",
]


@dataclass(frozen=True)
class Peer:
    """One of theirs.

    Parameters
    ----------
    make
        Builds what is timed; called only where the row is wanted.
    bound
        What the ratio ours / theirs may be at most; None where the row is for information.
    """

    make: Callable[[], Run]
    bound: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One of ours with its peers, timed in the same rounds.

    Parameters
    ----------
    group
        What belongs together on the command line: ``torch``, ``keras``.
    what
        Ours.
    make
        Builds ours, as `Peer.make` does theirs.
    steps
        Training steps, or calls, of one run.
    wait
        Returns when a device has done all that was started.
    """

    group: str
    what: str
    make: Callable[[], Run]
    peers: Mapping[str, Peer]
    steps: int = 1
    wait: Callable[[], None] = lambda: None

    def chosen(self, patterns: Sequence[str]) -> Comparison | None:
        """Return it with the peers that a pattern wants, all where there is none, or None.

        A pattern is the name of a group, or else a part of ``ours / theirs`` in any case.
        """

        def wanted(peer: str) -> bool:
            row = f"{self.what} / {peer}".lower()
            return any(pattern == self.group if pattern in GROUPS else pattern.lower() in row for pattern in patterns)

        peers = {name: peer for name, peer in self.peers.items() if not patterns or wanted(name)}
        return Comparison(self.group, self.what, self.make, peers, self.steps, self.wait) if peers else None


@dataclass(frozen=True)
class Row:
    """What was found: seconds a step of ours and theirs, the ratio, that of the minima, and what it may be."""

    what: str
    theirs: str
    ours_seconds: float
    their_seconds: float
    ratio: float
    least: float
    bound: float | None

    def markdown(self) -> str:
        """Return the row of the table."""
        bound, met = "-", "information"
        if self.bound is not None:
            bound, met = f"{self.bound:.2f}", "met" if self.ratio <= self.bound else "**missed**"
        return (
            f"| {self.what} | {self.theirs} | {1e6 * self.ours_seconds:,.0f} us | {1e6 * self.their_seconds:,.0f} us "
            f"| {self.ratio:.2f} | {self.least:.2f} | {bound} | {met} |"
        )


def here(make: Callable[[], Run]) -> AbstractContextManager[Run]:
    """Build a contender in this process."""
    return nullcontext(make())


def compare(comparison: Comparison, rounds: int, start: Start = here, starts: int = 1) -> Iterator[Row]:
    """Time ours and theirs turn by turn, after one run of each that is not counted.

    Parameters
    ----------
    starts
        How often all are built anew, each for its part of the rounds: where its memory lies makes the same loop faster
        or slower by some hundredths, for as long as it lives.
    """
    import numpy as np

    from unitrain.timing import Contender, measure

    makers = {"ours": comparison.make, **{name: peer.make for name, peer in comparison.peers.items()}}
    parts = []
    for number in range(min(starts, rounds)):
        with ExitStack() as stack:
            made = {name: stack.enter_context(start(make)) for name, make in makers.items()}
            contenders = [Contender(name, run, comparison.wait) for name, run in made.items()]
            for contender in contenders:
                contender.run()
                contender.wait()
            share = len(range(number, rounds, starts))
            parts.append(measure(contenders, rounds=share, generator=np.random.default_rng(number)).seconds)
    seconds = {name: np.concatenate([part[name] for part in parts]) for name in makers}
    own = seconds["ours"]
    for name, peer in comparison.peers.items():
        other = seconds[name]
        yield Row(
            comparison.what,
            name,
            float(np.median(own)) / comparison.steps,
            float(np.median(other)) / comparison.steps,
            float(np.median(own / other)),
            float(own.min() / other.min()),
            peer.bound,
        )


def write_between(table: str, marks: str, page: Path = PAGE) -> None:
    """Put a table between ``<!-- marks: start -->`` and ``<!-- marks: end -->`` of a page.

    Raises
    ------
    ValueError
        The page lacks one of the marks.
    """
    start, end = f"<!-- {marks}: start -->", f"<!-- {marks}: end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} lacks the marks {start} and {end}")
    page.write_text(f"{before}{start}\n{table}\n{end}{after}", encoding="utf-8")
