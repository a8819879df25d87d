"""Statistics and order of the rounds, against closed forms, scipy and a clock that the test moves; no real time."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unitrain.timing import (
    FEWEST_ROUNDS,
    Contender,
    Interval,
    claim,
    draw_orders,
    measure,
    median_interval,
    noise_band,
    ratio_interval,
)


class Clock:
    """Time that passes only when a contender works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def contender(self, name: str, seconds: float) -> Contender:
        def run() -> None:
            self.log.append(name)
            self.now += seconds

        return Contender(name, run)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_round_has_everybody_once_and_orders_differ():
    orders = draw_orders(["a", "b", "c"], 60, generator())
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    # Each stands in each place about as often: a third of 60, of which the standard deviation is 3.7.
    for place in range(3):
        for name in "abc":
            assert 8 <= sum(order[place] == name for order in orders) <= 32


def test_orders_depend_on_the_generator_alone():
    assert draw_orders(list("abcd"), 9, generator(1)) == draw_orders(list("abcd"), 9, generator(1))
    assert draw_orders(list("abcd"), 9, generator(1)) != draw_orders(list("abcd"), 9, generator(2))


def test_measured_times_are_those_of_a_call():
    clock = Clock()
    contenders = [clock.contender("fast", 0.001), clock.contender("slow", 0.5)]
    samples = measure(contenders, rounds=6, generator=generator(), sample_seconds=0.01, clock=clock)
    np.testing.assert_allclose(samples.seconds["fast"], np.full(6, 0.001))
    np.testing.assert_allclose(samples.seconds["slow"], np.full(6, 0.5))
    assert samples.calls["fast"] in (9, 10)  # ten calls of a thousandth take what a sample is to last
    assert samples.calls["slow"] == 1
    assert samples.rounds == 6


def test_short_samples_begin_with_a_call_that_is_not_timed():
    clock = Clock()
    measure([clock.contender("fast", 0.005)], rounds=5, generator=generator(), sample_seconds=0.01, clock=clock)
    assert len(clock.log) == 2 + 5 * (1 + 2)  # two to calibrate; then one untimed and two timed a round
    clock = Clock()
    measure([clock.contender("slow", 0.03)], rounds=5, generator=generator(), sample_seconds=0.01, clock=clock)
    assert len(clock.log) == 2 + 5


def test_each_round_makes_what_is_timed_anew_before_its_samples():
    clock = Clock()
    luck = [0.0]

    def renew() -> None:
        clock.log.append("renew")
        luck[0] += 1.0

    def run() -> None:
        clock.now += luck[0]

    lucky = Contender("lucky", run, renew=renew)
    samples = measure([lucky, clock.contender("even", 1.0)], rounds=4, generator=generator(), clock=clock)
    # Its calls take 1, 2, 3, 4 seconds: what is made in a round is timed in that round.
    assert samples.seconds["lucky"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert clock.log.count("renew") == 4


def test_rounds_interleave():
    clock = Clock()
    names = ["a", "b", "c"]
    measure([clock.contender(name, 1.0) for name in names], rounds=7, generator=generator(3), clock=clock)
    done = [clock.log[start : start + 3] for start in range(6, len(clock.log), 3)]
    assert done == draw_orders(names, 7, generator(3))


def test_a_budget_ends_the_rounds_but_not_before_the_fewest():
    clock = Clock()
    samples = measure([clock.contender("a", 1.0)], rounds=50, generator=generator(), budget=12.5, clock=clock)
    assert samples.rounds == 11  # two seconds to calibrate, then the round that begins at 12 is the last
    clock = Clock()
    samples = measure([clock.contender("a", 1.0)], rounds=50, generator=generator(), budget=0.0, clock=clock)
    assert samples.rounds == FEWEST_ROUNDS


def test_waiting_is_timed():
    clock = Clock()

    def wait() -> None:
        clock.now += 2.0

    samples = measure([Contender("a", lambda: None, wait)], rounds=5, generator=generator(), clock=clock)
    np.testing.assert_allclose(samples.seconds["a"], np.full(5, 2.0))


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_collection_is_left_as_it_was(collecting):
    before = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        during = []
        measure([Contender("a", lambda: during.append(gc.isenabled()))], rounds=5, generator=generator())
        assert not any(during[2:])
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_the_bootstrap_agrees_with_scipy():
    values = generator(5).lognormal(0.0, 0.4, 31)
    ours = median_interval(values, generator(1))
    theirs = stats.bootstrap(
        (values,), np.median, n_resamples=20_000, method="percentile", rng=generator(2)
    ).confidence_interval
    assert ours.value == np.median(values)
    assert ours.low == pytest.approx(theirs.low, rel=0.03)
    assert ours.high == pytest.approx(theirs.high, rel=0.03)


def test_the_interval_covers_the_median_as_often_as_it_says():
    # Of 300 samples of 25, about 95 % have the true median, 1, in their interval; bootstrap gives a little less.
    drawn = generator(7).lognormal(0.0, 0.5, (300, 25))
    found = [median_interval(values, generator(index)) for index, values in enumerate(drawn)]
    share = np.mean([interval.low <= 1.0 <= interval.high for interval in found])
    assert 0.89 <= share <= 0.99


def test_the_median_of_equal_values_is_certain():
    assert median_interval(np.full(9, 0.25), generator()) == Interval(0.25, 0.25, 0.25)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20))
def test_the_interval_lies_within_the_values_and_around_the_median(values):
    found = median_interval(np.array(values), generator())
    assert min(values) <= found.low <= found.value <= found.high <= max(values)


def test_ratios_are_taken_round_by_round():
    # The machine slows down tenfold half-way: both suffer alike, and the ratio is exact.
    load = np.array([1.0, 1.0, 1.0, 10.0, 10.0, 10.0, 10.0])
    assert ratio_interval(3.0 * load, load, generator()) == Interval(3.0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("twin", "band"),
    [
        (Interval(1.0, 0.9, 1.05), 1 / 0.9),
        (Interval(1.0, 0.98, 1.2), 1.2),
        (Interval(1.3, 1.1, 1.5), 1.5),
        (Interval(1.0, 1.0, 1.0), 1.0),
        (Interval(0.7, 0.5, 0.8), 2.0),
    ],
)
def test_the_band_is_the_farther_end_of_the_twin(twin, band):
    assert noise_band(twin) == pytest.approx(band)


@pytest.mark.parametrize(
    ("ratio", "band", "said"),
    [
        (Interval(0.5, 0.45, 0.55), 1.1, "faster"),
        (Interval(2.0, 1.8, 2.2), 1.1, "slower"),
        (Interval(0.95, 0.92, 0.98), 1.1, "same"),  # all below 1, but within the band
        (Interval(2.0, 0.8, 4.0), 1.1, "same"),  # far off, but not surely
        (Interval(2.0, 1.8, 2.2), 2.5, "same"),
        (Interval(1.1, 1.1, 1.1), 1.1, "same"),  # the band itself is not beyond it
    ],
)
def test_a_difference_is_claimed_only_outside_the_band(ratio, band, said):
    assert claim(ratio, band) == said


def test_a_twin_is_seldom_told_from_itself():
    """Noise alone: a contender of the same speed is claimed to differ in fewer than one case out of 20."""
    rng = generator(11)
    claimed = 0
    for index in range(200):
        noise = rng.lognormal(0.0, 0.1, (3, 15))
        twin = ratio_interval(noise[1], noise[0], generator(index))
        other = ratio_interval(noise[2], noise[0], generator(index))
        claimed += claim(other, noise_band(twin)) != "same"
    assert claimed < 10


def test_a_twice_as_slow_one_is_told():
    rng = generator(12)
    noise = rng.lognormal(0.0, 0.1, (3, 15))
    twin = ratio_interval(noise[1], noise[0], generator())
    assert claim(ratio_interval(2.0 * noise[2], noise[0], generator()), noise_band(twin)) == "slower"
