"""Interleaved rounds: what is compared runs turn by turn in one process, so that both meet the same machine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Times:
    """Seconds of each round."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.seconds)

    @property
    def least(self) -> float:
        """The smallest."""
        return min(self.seconds)


def interleave(candidates: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0) -> dict[str, Times]:
    """Time each candidate once a round, in an order that changes; two rounds before are not counted."""
    order = random.Random(seed)
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 2):
        order.shuffle(names)
        for name in names:
            started = time.perf_counter()
            candidates[name]()
            if number >= 2:
                seconds[name].append(time.perf_counter() - started)
    return {name: Times(found) for name, found in seconds.items()}


def ratio(ours: Times, theirs: Times) -> float:
    """Return the median over the rounds of ours / theirs."""
    return median(a / b for a, b in zip(ours.seconds, theirs.seconds, strict=True))
