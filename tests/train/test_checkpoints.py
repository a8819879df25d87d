"""Checkpoints: which stay, what a damaged one is answered with, and that steps do not wait for them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from survival.runs import RECIPE, differences

from unitrain.spec.errors import InputError
from unitrain.train.checkpoint import Checkpoint, read_state
from unitrain.train.checkpoints import BackgroundWriter, Checkpoints
from unitrain.train.events import Observer
from unitrain.train.fit import fit, resume
from unitrain.train.state import TrainingState


def checkpoint(step: int, best: int | None = None) -> Checkpoint:
    weights = {"w": np.arange(6, dtype=np.float32).reshape(2, 3) + step}
    return Checkpoint(weights, {"m": {"w": -weights["w"]}}, TrainingState(batches=step, best_step=best))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "iris.yaml"
    path.write_text(RECIPE)
    return path


def test_the_last_and_the_best_they_know_of_stay(tmp_path):
    kept = Checkpoints(tmp_path)
    for step, best in ((10, 10), (20, 20), (30, 20), (40, 20)):
        kept.write(checkpoint(step, best), keep_last=2)
    assert kept.steps() == [20, 30, 40]
    kept.write(checkpoint(50, 50), keep_last=2)
    assert kept.steps() == [20, 40, 50]
    kept.write(checkpoint(60, 50), keep_last=1)
    assert kept.steps() == [50, 60]


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    Checkpoints(tmp_path).write(checkpoint(7), keep_last=1)
    read = Checkpoints(tmp_path).newest()
    assert read is not None
    assert read.state == TrainingState(batches=7)
    np.testing.assert_array_equal(read.weights["w"], checkpoint(7).weights["w"])
    np.testing.assert_array_equal(read.slots["m"]["w"], checkpoint(7).slots["m"]["w"])
    assert read_state(Checkpoints(tmp_path).file(7)) == read.state


def test_every_altered_byte_is_noticed(tmp_path):
    """Each byte of the file in turn, header, state and numbers: refused, or read as what was written."""
    kept = Checkpoints(tmp_path)
    kept.write(checkpoint(7), keep_last=1)
    file = kept.file(7)
    whole = file.read_bytes()
    refused = 0
    for position in range(len(whole)):
        torn = bytearray(whole)
        torn[position] ^= 1
        file.write_bytes(bytes(torn))
        try:
            read = Checkpoint.load(file)
        except InputError:
            refused += 1
        else:
            np.testing.assert_array_equal(read.weights["w"], checkpoint(7).weights["w"])
            assert read.state == checkpoint(7).state
    # What may change unnoticed are spaces that pad the header.
    assert refused >= len(whole) - 8


@pytest.mark.parametrize("length", [0, 7, 8, 100, 0.5, 0.99])
def test_a_torn_checkpoint_is_refused_and_the_one_before_it_offered(recipe, tmp_path, length):
    whole = fit(recipe, out=tmp_path / "whole").folder
    run = fit(recipe, out=tmp_path / "run", overrides=["training.max_steps=17"]).folder
    *_, before, newest = run.checkpoints.steps()
    file = run.checkpoints.file(newest)
    content = file.read_bytes()
    file.write_bytes(content[: int(length * len(content)) if length < 1 and length else int(length)])
    with pytest.raises(InputError) as caught:
        resume(run.path, overrides=["training.max_steps=null"])
    problem = caught.value.problems[0]
    assert problem.file == str(file)
    offered = run.checkpoints.file(before)
    assert problem.hint == f"go on from the one before it: unitrain fit --resume {offered}"
    resume(offered, overrides=["training.max_steps=null"])
    assert differences(whole.path, run.path) == []


def test_without_a_sound_checkpoint_the_hint_says_so(tmp_path):
    kept = Checkpoints(tmp_path)
    for step in (1, 2):
        kept.write(checkpoint(step), keep_last=2)
        kept.file(step).write_bytes(b"torn")
    with pytest.raises(InputError, match="not a sound safetensors file") as caught:
        kept.newest()
    assert caught.value.problems[0].hint == "there is no sound checkpoint before it: start the recipe anew"


def test_steps_go_on_while_a_checkpoint_is_written():
    release, written = threading.Event(), []

    def write(item: Checkpoint) -> None:
        release.wait(10)
        written.append(item.state.batches)

    writer = BackgroundWriter(write)
    started = time.monotonic()
    writer.keep(checkpoint(1))
    assert time.monotonic() - started < 5
    assert written == []
    release.set()
    writer.keep(checkpoint(2))
    writer.close()
    assert written == [1, 2]


def test_what_writing_raised_ends_the_run(recipe, tmp_path, monkeypatch):
    def full(self, item, keep_last):
        raise InputError("cannot be written: No space left on device", file="step")

    monkeypatch.setattr(Checkpoints, "write", full)
    with pytest.raises(InputError, match="No space left"):
        fit(recipe, out=tmp_path / "run")


def test_a_checkpoint_within_an_epoch_is_taken_up(recipe, tmp_path):
    """An error that ends the run in mid-epoch: it goes on from the last checkpoint of that epoch."""

    class Fails(Observer):
        def on_block(self, event):
            if event.epoch == 3 and event.batch >= 6:
                raise RuntimeError("planted")

    whole = fit(recipe, out=tmp_path / "whole").folder
    with pytest.raises(RuntimeError, match="planted"):
        fit(recipe, out=tmp_path / "run", observers=[Fails()])
    from unitrain.train.run_folder import RunFolder

    state = RunFolder(tmp_path / "run").checkpoints.newest().state
    assert state.epoch == 2
    assert state.batch > 0
    resume(tmp_path / "run")
    assert differences(whole.path, tmp_path / "run") == []


def test_a_run_that_was_broken_off_after_its_last_step_is_brought_to_its_end(recipe, tmp_path):
    stop = {"training.max_steps": "training.max_steps=13", "patience": "training.early_stopping.patience=0"}
    for name, override in {**stop, "epochs": "training.epochs=2"}.items():
        whole = fit(recipe, out=tmp_path / name / "whole", overrides=[override]).folder
        run = fit(recipe, out=tmp_path / name / "run", overrides=[override]).folder
        with pytest.raises(InputError, match=r"the run (has|was)"):
            resume(run.path)
        run.result.unlink()
        run.weights.unlink()
        resume(run.path)
        assert differences(whole.path, run.path) == [], name
