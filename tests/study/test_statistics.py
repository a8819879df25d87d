"""Intervals and tests held to scipy, to published values, and to simulations whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from unitrain.study.statistics import (
    Table,
    bootstrap,
    holm,
    mcnemar,
    mean_interval,
    paired_difference,
    quantile,
    signal_to_noise,
    standing,
    wilson,
)
from unitrain.timing import Interval


@pytest.mark.parametrize(("successes", "samples"), [(81, 263), (15, 148), (0, 20), (29, 29), (9213, 10000)])
def test_wilson_is_scipys(successes, samples):
    found = wilson(successes, samples)
    low, high = stats.binomtest(successes, samples).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert found.value == successes / samples


def test_a_share_needs_samples():
    with pytest.raises(ValueError, match="needs samples"):
        wilson(0, 0)


def test_mcnemar_is_published():
    # Agresti 1990, Table 10.1: 794 approve twice, 150 and 86 change their minds, 570 disapprove twice: z^2 = 17.36
    # without correction; the exact test is the binomial of 86 among 236.
    table = Table(794, 150, 86, 570)
    assert mcnemar(table) == pytest.approx(2 * stats.binom.cdf(86, 236, 0.5), rel=1e-10)
    assert mcnemar(Table(10, 0, 0, 3)) == 1.0
    assert mcnemar(Table(0, 0, 5, 0)) == pytest.approx(2 / 2**5)


def test_holm_is_published():
    # Holm 1979; the values of R's p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm").
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.04, 0.001, 0.7]) == pytest.approx([0.08, 0.003, 0.7])
    assert holm([]) == []


def test_the_paired_difference_is_newcombes():
    # Newcombe 1998, Table II: 36, 12, 2, 0 of 50 has 0.0569 to 0.3404 by method 10.
    found = paired_difference(Table(36, 2, 12, 0))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)
    turned = paired_difference(Table(36, 12, 2, 0))
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_the_paired_difference_covers_the_truth():
    generator = np.random.default_rng(0)
    shares = (0.85, 0.06, 0.04, 0.05)
    drawn = generator.multinomial(400, shares, 2000)
    covered = [found.low <= -0.02 <= found.high for found in (paired_difference(Table(*row)) for row in drawn.tolist())]
    assert 0.935 <= np.mean(covered) <= 0.985


def test_standing():
    assert standing(Interval(0.0, -0.005, 0.005), 0.01) == "not inferior"
    assert standing(Interval(-0.05, -0.06, -0.04), 0.01) == "inferior"
    assert standing(Interval(-0.01, -0.03, 0.01), 0.01) == "open"


def test_the_bootstrap_is_that_of_scipy():
    values = np.random.default_rng(1).normal(2.0, 1.0, 200)
    found = mean_interval(values, np.random.default_rng(2))
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=3).confidence_interval
    assert found.value == pytest.approx(values.mean())
    # Two bootstraps differ by their draws: some hundredths of the interval's width, 0.28.
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)


def test_the_bootstrap_keeps_pairs():
    noise = np.random.default_rng(4).normal(0.0, 5.0, 300)
    first, second = noise, noise + 0.1

    def gain(drawn):
        return second[drawn].mean(1) - first[drawn].mean(1)

    found = bootstrap(gain, 300, np.random.default_rng(5))
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_signal_to_noise():
    exact = np.array([3.0, 4.0])
    assert signal_to_noise(exact, exact + np.array([0.3, 0.4])) == pytest.approx(20.0)
    assert signal_to_noise(exact, exact) == math.inf


def test_quantiles_are_told_where_they_are_known():
    # The smallest n with 0.99^n <= 0.025: Hahn & Meeker 1991 have ln(0.025) / ln(0.99) = 367.04.
    assert quantile(np.arange(367.0), 0.99) is None
    assert quantile(np.arange(368.0), 0.99) == pytest.approx(0.99 * 367)
    assert quantile(np.arange(35.0), 0.9) is None
    assert quantile(np.arange(36.0), 0.9) == pytest.approx(31.5)
