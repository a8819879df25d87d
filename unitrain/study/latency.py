"""Latency of all variants in one process, in interleaved rounds, beside A/A twins of the baseline.

Two sessions of one file differ by where their memory lies, some thousandths of their time: what is claimed must exceed
what several twins, each a session of its own, seem to differ from the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unitrain.study.results import Latency
from unitrain.study.statistics import quantile
from unitrain.timing import Contender, claim, measure, noise_band, ratio_interval

TWINS = 3
# Seconds of calls in each round and for each variant.
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Timed:
    """What a scenario gave: the variants by name, the A/A band, the rounds done."""

    latencies: Mapping[str, Latency]
    band: float
    rounds: int


def time_all(
    baseline: Contender,
    twins: Sequence[Contender],
    others: Sequence[Contender],
    batch: int,
    rounds: int,
    generator: np.random.Generator,
    progress: Callable[[int], None] = lambda done: None,
) -> Timed:
    """Time contenders against the baseline.

    Parameters
    ----------
    baseline, twins, others
        What is compared with, what is the same, and what is not; each has run before.
    progress
        Told how many rounds are done.
    """
    samples = measure(
        [baseline, *twins, *others],
        rounds=rounds,
        generator=generator,
        sample_seconds=SAMPLE_SECONDS,
        each=True,
        after_round=progress,
    )
    base = samples.seconds[baseline.name]
    band = max(noise_band(ratio_interval(samples.seconds[twin.name], base, generator)) for twin in twins)
    found = {}
    for name in (baseline.name, *(other.name for other in others)):
        seconds = samples.seconds[name]
        ratio = None if name == baseline.name else ratio_interval(seconds, base, generator)
        calls = samples.each[name]
        found[name] = Latency(
            batch,
            float(np.median(calls)),
            quantile(calls, 0.90),
            quantile(calls, 0.99),
            len(calls),
            ratio,
            "baseline" if ratio is None else claim(ratio, band),
        )
    return Timed(found, band, samples.rounds)
