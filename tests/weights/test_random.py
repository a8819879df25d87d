"""The one source of randomness: published known answers, and independence of everything but the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitrain.weights.random import NUMPY_WORDS, keep_mask, keep_threshold, mask_key, stream, threefry

# Known answers of threefry2x32 with 20 rounds, as published with Random123 (Salmon et al. 2011).
KNOWN_ANSWERS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


class PlainWords:
    """32-bit words as unbounded Python integers: what a tensor with wider integers does."""

    def add(self, x: int, y: int) -> int:
        return (x + y) % 2**32

    def xor(self, x: int, y: int) -> int:
        return x ^ y

    def rotate_left(self, x: int, bits: int) -> int:
        return (x << bits | x >> (32 - bits)) % 2**32


@pytest.mark.parametrize(("key", "counter", "answer"), KNOWN_ANSWERS)
def test_threefry_gives_the_known_answers(
    key: tuple[int, int], counter: tuple[int, int], answer: tuple[int, int]
) -> None:
    words = tuple(np.array([word], np.uint32) for word in counter)
    assert tuple(int(word[0]) for word in threefry(NUMPY_WORDS, key, (words[0], words[1]))) == answer
    assert threefry(PlainWords(), key, counter) == answer


word = st.integers(0, 2**32 - 1)


@given(st.tuples(word, word), st.tuples(word, word))
def test_numpy_words_are_plain_words(key: tuple[int, int], counter: tuple[int, int]) -> None:
    first, second = (np.array([value], np.uint32) for value in counter)
    found = threefry(NUMPY_WORDS, key, (first, second))
    assert tuple(int(value[0]) for value in found) == threefry(PlainWords(), key, counter)


def test_a_stream_is_the_same_whenever_it_is_asked_for() -> None:
    first = stream(0, "weights", "a").normal(size=10)
    stream(0, "weights", "b").normal(size=1000)
    np.testing.assert_array_equal(stream(0, "weights", "a").normal(size=10), first)


def test_streams_of_other_keys_are_other_streams() -> None:
    keys: list[tuple[int, tuple[str | int, ...]]] = [
        (0, ("weights", "a")),
        (1, ("weights", "a")),
        (0, ("weights", "b")),
        (0, ("order", 0)),
        (0, ("order", 1)),
        (0, ("weights",)),
        (0, ()),
    ]
    draws = [stream(seed, *purpose).normal(size=2000) for seed, purpose in keys]
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    # Independent: a correlation of 2000 pairs has a standard deviation of 0.022.
    assert np.abs(correlation).max() < 0.1


def test_a_stream_is_pinned_for_ever() -> None:
    # Stored runs go on from these numbers: a change here would make resumed runs other runs.
    assert stream(0, "weights", "dense.kernel").integers(0, 2**32, 3).tolist() == [2521759855, 3270308612, 1760490622]
    assert mask_key(0, "dropout", "drop") == (248406090, 1542698902)


def masks(rate: float, size: int, steps: int) -> Iterator[np.ndarray[Any, Any]]:
    for step in range(steps):
        yield keep_mask(mask_key(3, "dropout", "d"), step, size, rate)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_its_share(rate: float) -> None:
    kept = np.concatenate(list(masks(rate, 10_001, 10)))
    deviation = (rate * (1 - rate) / kept.size) ** 0.5
    assert abs(kept.mean() - (1 - rate)) <= 5 * deviation


def test_masks_of_two_steps_and_of_both_halves_are_independent() -> None:
    first, second = masks(0.5, 20_000, 2)
    assert abs((first == second).mean() - 0.5) < 0.02
    assert abs((first[:10_000] == first[10_000:]).mean() - 0.5) < 0.025


@given(st.integers(0, 400), st.integers(0, 2**33))
def test_a_mask_is_its_definition(size: int, step: int) -> None:
    """Word by word: element i has the first word of counter (i, step), element half + i the second."""
    key, half = (5, 7), (size + 1) // 2
    words = [threefry(PlainWords(), key, (i, step % 2**32)) for i in range(half)]
    expected = [first >= keep_threshold(0.3) for first, _ in words] + [
        second >= keep_threshold(0.3) for _, second in words
    ]
    assert keep_mask(key, step, size, 0.3).tolist() == expected[:size]


def test_thresholds_stay_words() -> None:
    assert keep_threshold(0.0) == 0
    assert keep_threshold(0.5) == 2**31
    assert keep_threshold(1 - 1e-12) == 2**32 - 1
