"""Latency of all variants in one process, in interleaved rounds, beside A/A twins of the baseline.

Two sessions of one file differ by where their memory lies, by a hundredth of their time and more: each round loads the
files anew, in a drawn order, so that this falls on the rounds as other noise does. What is claimed must exceed what
several twins seem to differ from the baseline.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unitrain.backends.onnx.deployed import Array, Deployed
from unitrain.study.results import Latency
from unitrain.study.statistics import quantile
from unitrain.timing import Contender, claim, measure, noise_band, ratio_interval

TWINS = 3
# Seconds of calls in each round and for each variant.
SAMPLE_SECONDS = 0.02
# A file that takes longer to load is loaded anew in every second round, or third: the loading of one variant takes no
# more than this of a round in the mean.
LOADING_SECONDS = 0.1


@dataclass(frozen=True)
class Timed:
    """What a scenario gave: the variants by name, the A/A band, the rounds done."""

    latencies: Mapping[str, Latency]
    band: float
    rounds: int


def loaded(name: str, load: Callable[[], Deployed], feeds: Mapping[str, Array]) -> Contender:
    """Return calls of a file on one batch, ready to be timed; ``load`` loads it, now and before later rounds."""
    inputs = dict(feeds)
    begun = time.perf_counter()
    first = load()
    every = max(1, math.ceil((time.perf_counter() - begun) / LOADING_SECONDS))
    session, names = first.session, [port.name for port in first.outputs]
    session.run(names, inputs)
    rounds = 0

    def renew() -> None:
        nonlocal session, rounds
        rounds += 1
        if rounds % every == 0:
            session = load().session
            session.run(names, inputs)

    return Contender(name, lambda: session.run(names, inputs), renew=renew)


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
