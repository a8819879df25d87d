"""Latency of all variants in one process, in interleaved rounds, beside an A/A twin of the baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unitrain.study.results import Latency
from unitrain.study.statistics import quantile
from unitrain.timing import TWIN, Contender, claim, measure, noise_band, ratio_interval

# Seconds of calls in each round and for each variant.
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Timed:
    """What a scenario gave: the variants by name, the A/A band, the rounds done."""

    latencies: Mapping[str, Latency]
    band: float
    rounds: int


def time_all(
    contenders: Sequence[Contender],
    batch: int,
    rounds: int,
    generator: np.random.Generator,
    progress: Callable[[int], None] = lambda done: None,
) -> Timed:
    """Time contenders against the first of them, the baseline.

    Parameters
    ----------
    contenders
        The baseline, one that is the same and called `timing.TWIN`, and the others; each has run before.
    progress
        Told how many rounds are done.
    """
    samples = measure(
        contenders,
        rounds=rounds,
        generator=generator,
        sample_seconds=SAMPLE_SECONDS,
        each=True,
        after_round=progress,
    )
    baseline = contenders[0].name
    base = samples.seconds[baseline]
    band = noise_band(ratio_interval(samples.seconds[TWIN], base, generator))
    found = {}
    for name, seconds in samples.seconds.items():
        ratio = None if name == baseline else ratio_interval(seconds, base, generator)
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
