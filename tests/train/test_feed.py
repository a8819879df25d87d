"""Data on the device and data gathered ahead: the same numbers, clean ends, bounded memory."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from unitrain.backends import load_backend
from unitrain.backends.contract import Batchable, Plan, Settings, Statistics
from unitrain.backends.rule import TrainingRule
from unitrain.graph.resolve import resolve
from unitrain.spans import WAITING, recording
from unitrain.spec.losses import CrossEntropy
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam
from unitrain.spec.training import TrainingSpec
from unitrain.train.feed import Resident, Streamed, make_feed
from unitrain.train.losses import make_loss
from unitrain.train.plan import Batches
from unitrain.train.schedules import make_schedule
from unitrain.train.trainer import Trainer
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize

SAMPLES, WIDTH = 46, 5


class OnDisk:
    """Gives rows on request and is no array: what a file that is read as needed looks like."""

    def __init__(self, values, seconds=0.0):
        self.values, self.seconds = values, seconds
        self.threads = set()

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        time.sleep(self.seconds)
        self.threads.add(threading.current_thread().name)
        return self.values[rows]


def make_data(weighted=True):
    generator = np.random.default_rng(3)
    return Batchable(
        {"x": generator.standard_normal((SAMPLES, WIDTH)).astype(np.float32)},
        {"logits": generator.integers(0, 3, SAMPLES).astype(np.int32)},
        generator.random(SAMPLES).astype(np.float32) if weighted else None,
    )


def streamed(data, **options):
    return Batchable({"x": OnDisk(data.inputs["x"], **options)}, data.targets, data.weight)


def make_trainer(data, backend="numpy", length=None, augment=None, **options):
    spec = TrainingSpec(**{"epochs": 3, "batch_size": 4, "keep_best": None, **options})
    graph = resolve(
        ModelSpec.model_validate(
            {
                "inputs": {"x": {"shape": [WIDTH]}},
                "layers": [
                    {"type": "dense", "units": 6, "activation": "relu"},
                    {"type": "dropout", "rate": 0.3},
                    {"type": "dense", "name": "logits", "units": 3},
                ],
            }
        )
    )
    update = Update(Adam(lr=0.01), {name: graph.parameters[name].decay for name in graph.trainable})
    rule = TrainingRule({"logits": (1.0, make_loss(CrossEntropy()))}, [], update)
    settings = Settings("cpu", deterministic=True)
    program = load_backend(backend).compile(graph, initialize(graph, 0), settings, rule)
    batches = Batches(SAMPLES, spec.batch_size, spec.accumulate)
    steps = batches.updates_per_epoch
    schedule = make_schedule(None, 0.01, steps, steps * spec.epochs)
    trainer = Trainer(program, update, schedule, data, batches, spec, augment=augment)
    if length is not None:
        trainer._block_length.observe = lambda batches, seconds: None
        trainer._block_length.length = length
    return trainer


def weights_of(trainer, state=None):
    trainer.run(state)
    return {name: array.copy() for name, array in trainer.program.weights().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def feeding():
    return [thread for thread in threading.enumerate() if thread.name == "feed"]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_streamed_training_gives_the_weights_of_resident_training(backend, accumulate):
    data = make_data()
    resident = weights_of(make_trainer(data, backend, 5, accumulate=accumulate))
    for length in (1, 2, 5, 100):
        given = streamed(data)
        assert_same(weights_of(make_trainer(given, backend, length, accumulate=accumulate)), resident)
        assert "feed" in given.inputs["x"].threads
    assert not feeding()


def test_kind_of_feed_follows_the_data():
    data = make_data()
    trainer = make_trainer(data)
    for given, augment, kind in (
        (data, None, Resident),
        (data, lambda inputs, batch: inputs, Streamed),
        (streamed(data), None, Streamed),
    ):
        with make_feed(trainer.program, given, iter(()), augment) as feed:
            assert type(feed) is kind


def noisy(inputs, targets, batch):
    noise = np.random.default_rng(batch).standard_normal(inputs["x"].shape).astype(np.float32)
    return {"x": inputs["x"] + noise}, targets


def test_augmentation_is_keyed_by_the_batch_whatever_the_blocks():
    data = make_data()
    expected = weights_of(make_trainer(data, length=1, augment=noisy))
    for length in (2, 100):
        assert_same(weights_of(make_trainer(data, length=length, augment=noisy)), expected)
    plain = weights_of(make_trainer(data))
    assert any(not np.array_equal(plain[name], expected[name]) for name in plain)


def test_resuming_within_an_epoch_changes_nothing():
    data = make_data()
    whole = weights_of(make_trainer(data, augment=noisy))
    first = make_trainer(streamed(data), length=2, augment=noisy, max_steps=17)
    weights_of(first)
    second = make_trainer(streamed(data), length=5, augment=noisy)
    second.program.load_weights(first.program.weights())
    second.program.load_slots(first.program.slots())
    assert 0 < first.state.batch < second.batches.batches_per_epoch
    assert_same(weights_of(second, first.state), whole)


def test_an_error_of_the_augmentation_comes_out_as_itself_after_the_steps_before_it():
    error = ZeroDivisionError("planted")

    def failing(inputs, targets, batch):
        if batch == 7:
            raise error
        return inputs, targets

    trainer = make_trainer(make_data(), length=2, augment=failing)
    with pytest.raises(ZeroDivisionError) as caught:
        trainer.run()
    assert caught.value is error
    assert trainer.state.batches == 7  # blocks of 1, 2, 2, 2, and the one that fails
    assert not feeding()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_no_thread_is_left_when_the_program_breaks_off(error):
    trainer = make_trainer(streamed(make_data()), length=2)

    def broken(placed, plan):
        raise error

    trainer.program.run_steps = broken
    with pytest.raises(error):
        trainer.run()
    assert not feeding()


def test_no_thread_is_left_when_the_user_stops_or_time_is_over():
    trainer = make_trainer(streamed(make_data()), length=2)
    trainer.interrupted = lambda: "interrupted"
    assert trainer.run().reason == "interrupted"
    assert not feeding()
    assert make_trainer(streamed(make_data()), max_steps=3).run().reason == "step limit"
    assert not feeding()


class Slow:
    """A program that only notes what it was given."""

    def __init__(self):
        self.blocks = []

    def place(self, data):
        return data

    def run_steps(self, placed, plan):
        self.blocks.append((placed.inputs["x"][plan.indices], plan))
        return Statistics(np.zeros(len(plan)), {})


def plan_of(rows, first):
    ones = np.ones(len(rows))
    return Plan(np.array(rows, dtype=np.int32), ones[:, None], ones, ones.astype(bool), first)


def test_what_waits_is_bounded_by_bytes_and_by_two_blocks():
    values = np.zeros((1000, 256), dtype=np.float32)  # a batch of 10 rows has 10 KiB
    taken = []

    def count(inputs, targets, batch):
        taken.append(batch)
        return inputs, targets

    def coming():
        return ((number, np.arange(10, dtype=np.int32) + 10 * number) for number in range(100))

    data = Batchable({"x": values}, {})
    with Streamed(Slow(), data, coming(), count, ahead_bytes=45 * 2**10) as feed:
        feed.run(plan_of([np.arange(10) + 10 * number for number in range(8)], 0))
        time.sleep(0.2)
        # Four batches fit into 45 KiB, and one more is held by the thread until there is room.
        assert len(feed._waiting) == 4
        assert len(taken) == 8 + 4 + 1
    taken.clear()
    with Streamed(Slow(), data, coming(), count) as feed:
        feed.run(plan_of([np.arange(10) + 10 * number for number in range(3)], 0))
        time.sleep(0.2)
        assert len(feed._waiting) == 6
        assert len(taken) == 3 + 6 + 1


def test_a_block_is_bounded_by_bytes_once_the_size_of_a_batch_is_known():
    data = Batchable({"x": np.zeros((40, 256), dtype=np.float32)}, {})
    coming = ((number, np.arange(10, dtype=np.int32)) for number in range(4))
    with Streamed(Slow(), data, coming, block_bytes=35 * 2**10) as feed:
        assert feed.longest == 1
        feed.run(plan_of([range(10)], 0))
        assert feed.longest == 3


def test_a_plan_that_was_not_announced_is_gathered_anew():
    values = np.arange(40, dtype=np.float32)
    program = Slow()
    announced = ((number, np.arange(2, dtype=np.int32) + 2 * number) for number in range(10))
    with Streamed(program, Batchable({"x": values}, {}), announced) as feed:
        feed.run(plan_of([[0, 1], [2, 3]], 0))
        feed.run(plan_of([[30, 31], [6, 7]], 2))  # other rows
        feed.run(plan_of([[12, 13]], 6))  # batches left out
        feed.run(plan_of([[2, 3]], 1))  # a batch again
        feed.run(plan_of([[14, 15], [38, 39]], 7))
        feed.run(plan_of([[20, 21]], 50))  # beyond the end
    seen = [block.astype(int).tolist() for block, _ in program.blocks]
    assert seen == [[[0, 1], [2, 3]], [[30, 31], [6, 7]], [[12, 13]], [[2, 3]], [[14, 15], [38, 39]], [[20, 21]]]
    assert [plan.first_step for _, plan in program.blocks] == [0, 2, 6, 1, 7, 50]


def test_the_next_block_is_gathered_while_the_device_computes():
    """Reading takes 10 ms a batch and so does a step: one after the other would take twice as long."""
    program = Slow()
    before = program.run_steps

    def busy(placed, plan):
        time.sleep(0.01 * len(plan))
        return before(placed, plan)

    program.run_steps = busy
    rows = [np.arange(10, dtype=np.int32) for _ in range(48)]
    data = Batchable({"x": OnDisk(np.zeros((10, 2), np.float32), seconds=0.01)}, {})
    with recording() as recorder, Streamed(program, data, iter(enumerate(rows))) as feed:
        for first in range(0, 48, 4):
            feed.run(plan_of(rows[first : first + 4], first))
    waited = sum(span.seconds for span in recorder.spans if span.name == WAITING)
    assert waited < 0.7 * 0.48
