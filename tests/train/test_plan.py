"""The plan of an epoch: every sample once, batches of one size a block, groups whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unitrain.train.plan import Batches, BlockLength

sizes = st.integers(1, 400)


@given(samples=sizes, batch_size=st.integers(1, 64), length=st.integers(1, 50), accumulate=st.integers(1, 5))
def test_blocks_cover_an_epoch_exactly_once(samples, batch_size, length, accumulate):
    batches = Batches(samples, batch_size, accumulate, seed=3)
    order = batches.order(0)
    seen, first, ends = [], 0, []
    while first < batches.batches_per_epoch:
        end = batches.block_end(first, length)
        rows = batches.rows(order, first, end)
        assert rows.shape[0] == end - first
        seen.append(rows.reshape(-1))
        ends.append(end)
        first = end
    assert np.array_equal(np.concatenate(seen), order)
    assert sorted(order) == list(range(samples))
    # A block ends with an update, or right before the short last batch.
    for end in ends:
        assert batches.group(end - 1)[1] or end == samples // batch_size


@given(samples=sizes, batch_size=st.integers(1, 64), accumulate=st.integers(1, 5))
def test_factors_of_each_update_add_up_to_one(samples, batch_size, accumulate):
    batches = Batches(samples, batch_size, accumulate)
    total, updates = 0.0, 0
    for batch in range(batches.batches_per_epoch):
        factor, applied = batches.group(batch)
        total += factor
        if applied:
            assert abs(total - 1.0) < 1e-12
            total, updates = 0.0, updates + 1
    assert total == 0.0
    assert updates == batches.updates_per_epoch


def test_dropping_the_short_batch():
    assert Batches(10, 4).batches_per_epoch == 3
    assert Batches(10, 4, drop_last=True).batches_per_epoch == 2
    # An epoch is never empty.
    assert Batches(3, 4, drop_last=True).batches_per_epoch == 1


def test_orders_depend_on_seed_and_epoch_alone():
    one, two = Batches(50, 8, seed=1), Batches(50, 16, seed=1)
    assert np.array_equal(one.order(4), two.order(4))
    assert not np.array_equal(one.order(4), one.order(5))
    assert not np.array_equal(one.order(4), Batches(50, 8, seed=2).order(4))
    assert np.array_equal(Batches(5, 2, shuffle=False).order(7), np.arange(5))


def test_block_length_follows_the_clock():
    length = BlockLength(seconds=0.2)
    length.observe(1, 30.0)  # the first call traces and compiles
    assert length.length == 1
    length.observe(1, 0.001)
    assert length.length == 4  # grows at most fourfold
    for _ in range(5):
        length.observe(length.length, 0.001 * length.length)
    assert 190 <= length.length <= 200
    length.observe(200, 4.0)
    assert length.length == 10
