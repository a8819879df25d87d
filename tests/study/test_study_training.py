"""A schedule pressed into fewer epochs gives the same rates at the same shares of the run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from unitrain.backends import load_backend
from unitrain.backends.contract import Settings
from unitrain.graph.passes.prune_channels import prune_channels
from unitrain.spec import schedules as specs
from unitrain.study.progress import Progress
from unitrain.study.subject import from_run
from unitrain.study.training import finetune, pressed
from unitrain.train.events import Observer
from unitrain.train.inference import TrainedRun
from unitrain.train.schedules import make_schedule


@pytest.mark.parametrize(
    "spec",
    [
        specs.CosineSchedule(warmup=2, minimum=0.01),
        specs.StepSchedule(every=4, factor=0.5),
        specs.MultiStepSchedule(milestones=(4, 8)),
        specs.PolynomialSchedule(power=2.0, length=8),
    ],
)
def test_pressed(spec):
    # Twelve epochs of ten updates, and three; from where the warm-up, which counts from 1, is over in both.
    whole = make_schedule(spec, 0.1, 10, 120).learning_rates(0, 120)
    short = make_schedule(pressed(spec, 0.25), 0.1, 10, 30).learning_rates(0, 30)
    np.testing.assert_allclose(short[5:], whole[20::4], rtol=1e-9)
    if spec.warmup:
        assert short[4] == pytest.approx(whole[19]) == 0.1


def test_an_exponential_falls_as_far():
    spec = specs.ExponentialSchedule(factor=0.8)
    whole = make_schedule(spec, 0.1, 10, 120).learning_rates(0, 120)
    short = make_schedule(pressed(spec, 0.25), 0.1, 10, 30).learning_rates(0, 30)
    # It falls once an epoch.
    np.testing.assert_allclose(short[::10], whole[::40], rtol=1e-9)


def test_none_stays_none():
    assert pressed(None, 0.5) is None
    assert pressed(specs.OneCycleSchedule(), 0.5) == specs.OneCycleSchedule()


def test_a_teacher_draws_what_is_pruned_nearer_to_itself(run):
    """By the Kullback-Leibler divergence of its softmax from the teacher's, on samples of the test part."""
    trained = TrainedRun.open(run, backend="numpy")
    found = prune_channels(trained.loaded.graph, trained.program.weights(), 0.5)
    samples = from_run(run, 64, 0).samples.test

    def logits(graph, weights):
        program = load_backend("numpy").compile(graph, weights, Settings())
        return program.predict(samples.inputs)["digit"].astype(np.float64)

    def distance(teacher: Path | None) -> float:
        graph, weights = finetune(trained.loaded, found.graph, found.weights, 6, Progress(), teacher=teacher)
        one, two = (log_softmax(logits(*model), axis=1) for model in ((graph, weights), whole))
        return float((np.exp(two) * (two - one)).sum(axis=1).mean())

    whole = trained.loaded.graph, trained.program.weights()
    assert distance(run) < 0.5 * distance(None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_study_and_not_one_training(run, number):
    class Asking(Observer):
        def on_block(self, event):
            os.kill(os.getpid(), number)

    class Display(Progress):
        def training(self):
            return Asking()

    trained = TrainedRun.open(run, backend="numpy")
    with pytest.raises(SystemExit) as caught:
        finetune(trained.loaded, trained.loaded.graph, trained.program.weights(), 50, Display())
    assert caught.value.code == 128 + number
