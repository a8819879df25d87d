"""The shared trainer: plans blocks of steps, hands them to a program, and decides at their edges."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unitrain.backends.contract import Batchable, Plan, Program, Statistics
from unitrain.spans import span
from unitrain.spec.errors import InputError
from unitrain.spec.training import TrainingSpec
from unitrain.train.blocks import Blocks
from unitrain.train.diagnosis import first_non_finite
from unitrain.train.events import BlockDone, EpochDone, Observer, RunEnd
from unitrain.train.feed import Augment, Feed, Teach, make_feed
from unitrain.train.keeping import Keeper, Keeping
from unitrain.train.loss_scale import LossScale
from unitrain.train.memory import answered, evaluation_answered
from unitrain.train.metrics import HostMetric
from unitrain.train.monitor import Monitor
from unitrain.train.plan import Batches, BlockLength
from unitrain.train.pruner import Pruner
from unitrain.train.schedules import Schedule
from unitrain.train.state import TrainingState
from unitrain.train.update import Update

_OVERFLOW = "gradients overflow float16 at every loss scale down to 1: mixed_bfloat16 has the range of float32"


# Measures the validation set with the weights a program has now: ``{"loss": ..., label: ...}``.
Validation = Callable[[], dict[str, Any]]


@dataclass
class Trainer:
    """Trains a program.

    Parameters
    ----------
    program
        Compiled with a rule whose updater is ``update``.
    update
        Gives the optimizer's coefficients for each update.
    schedule
        Gives the learning rates.
    data
        The training set.
    batches
        How the training set is cut.
    spec
        The course of the run.
    validate
        Measures the validation set; None when there is none.
    keeper
        Keeps checkpoints; None keeps none.
    metrics
        Label to metric: how a ratio of sums becomes its value, and whether larger is better.
    augment
        Changes training batches on the host, or None.
    teach
        Changes the targets of training batches on the host, or None.
    pruner
        Lets weights become zero at some updates, or None. No weights count as the best before it has ended.
    observers
        Told what happens.
    interrupted
        Asked at every block's edge whether to stop: ``interrupted`` (Ctrl-C), ``terminated`` (SIGTERM) or None.
    """

    program: Program
    update: Update
    schedule: Schedule
    data: Batchable
    batches: Batches
    spec: TrainingSpec
    validate: Validation | None = None
    keeper: Keeper | None = None
    metrics: Mapping[str, HostMetric] = field(default_factory=dict)
    augment: Augment | None = None
    teach: Teach | None = None
    pruner: Pruner | None = None
    observers: Sequence[Observer] = ()
    interrupted: Callable[[], str | None] = lambda: None

    state: TrainingState = field(init=False, default_factory=TrainingState)
    _block_length: BlockLength = field(init=False, default_factory=BlockLength)
    _rate: float = field(init=False, default=0.0)
    _clock: float = field(init=False, default=0.0)
    _seconds_before: float = field(init=False, default=0.0)
    _validation: dict[str, Any] = field(init=False, default_factory=dict)
    _monitor: Monitor = field(init=False)
    _keeping: Keeping = field(init=False)
    _blocks: Blocks = field(init=False)

    def run(self, state: TrainingState | None = None) -> RunEnd:
        """Train until something ends the run; return why it ended. Observers' ``on_end`` is the caller's."""
        self.state = state or TrainingState()
        if self.state.schedule:
            try:
                self.schedule.load_state(self.state.schedule)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"the checkpoint does not hold what the schedule remembers: {error!r}") from None
        if self.state.batch and self.state.batch >= self.batches.batches_per_epoch:
            raise InputError(
                "the checkpoint does not fit the recipe: it stands within an epoch that has fewer batches",
                found=f"batch {self.state.batch:,} of {self.batches.batches_per_epoch:,}",
                hint="a run goes on with the data and the batch size it was begun with",
            )
        if self.spec.precision == "mixed_float16" and self.state.loss_scale is None:
            self.state.loss_scale = LossScale()
        self._clock = time.perf_counter()
        self._seconds_before = self.state.seconds
        self._monitor = Monitor(self.spec, self.metrics, self.state)
        self._keeping = Keeping(self.spec, self.keeper, self.state)
        self._blocks = Blocks(
            self.batches, self.schedule, self.update, self.spec, self.pruner, self._keeping, self.state
        )
        over = self._over_before()
        if over is not None:
            return over
        if self.state.updates == 0:
            self._prune()
        coming = self.batches.coming(self.state.epoch, self.state.batch, self.spec.epochs, self.state.batches)
        with make_feed(self.program, self.data, coming, self.augment, self.teach) as feed:
            self._clock = time.perf_counter()
            while self.state.epoch < self.spec.epochs:
                started = time.perf_counter()
                samples_before = self.state.samples
                end = self._epoch(feed)
                if end is not None:
                    return end
                speed = (self.state.samples - samples_before) / max(time.perf_counter() - started, 1e-9)
                stop = self._end_epoch(speed)
                if stop is not None:
                    return stop
        return self._end("finished", f"trained for {self.state.epoch} {'epoch' if self.state.epoch == 1 else 'epochs'}")

    def _epoch(self, feed: Feed) -> RunEnd | None:
        """Train to the end of the epoch under way; return the run's end when it comes first."""
        state = self.state
        order = self.batches.order(state.epoch)
        while state.batch < self.batches.batches_per_epoch:
            first = state.batch
            end = self._blocks.end(first, min(self._block_length.length, feed.longest))
            plan, rates = self._blocks.plan(order, first, end)
            started = time.perf_counter()
            with answered(self.spec):
                statistics = feed.run(plan)
            self._rate = float(rates[-1])
            seconds = time.perf_counter() - started
            self._block_length.observe(len(statistics.losses), seconds)
            if not self._account(plan, statistics):
                return self._not_finite(plan, statistics)
            if self._blocks.scale is not None and self._blocks.scale.exhausted:
                return self._end("not finite", _OVERFLOW)
            if plan.apply[-1]:
                self._prune()
            state.seconds = self._seconds_before + time.perf_counter() - self._clock
            event = BlockDone(
                state.epoch + 1,
                state.batch,
                self.state.values(self.metrics),
                self._rate,
                plan.indices.size / max(seconds, 1e-9),
            )
            with span("display and logs"):
                for observer in self.observers:
                    observer.on_block(event)
            stop = self._limit(plan)
            if stop is not None:
                return stop
            if plan.apply[-1] and self._keeping.is_due(state) and state.batch < self.batches.batches_per_epoch:
                self._keep()
        return None

    def _over_before(self) -> RunEnd | None:
        """Return the end of a run that had come to it when it was broken off."""
        if self._monitor.lost_patience:
            return self._end("early stopping", self._monitor.lost_patience)
        reached = self._reached()
        if not self.state.updates or reached is None:
            return None
        if not self.state.batch:
            return self._end(*reached)
        self._rate = float(self.schedule.learning_rates(self.state.updates - 1, 1)[-1])
        return self._stop_early(*reached)

    def _prune(self) -> None:
        """Let weights become zero, where some are due after as many updates."""
        if self.pruner is not None and self.pruner.is_due(self.state.updates):
            with span("prune"):
                self.pruner.prune(self.program, self.state.updates)

    def _account(self, plan: Plan, statistics: Statistics) -> bool:
        """Add a block to the state; return False when its last loss is not finite."""
        finite = bool(np.isfinite(statistics.losses).all())
        finite &= len(statistics.losses) == len(plan) or statistics.skipped
        done = len(statistics.losses) - (0 if finite else 1)
        applied = int(plan.apply[:done].sum()) - statistics.skipped
        if self._blocks.scale is not None:
            self._blocks.scale.observe(applied, statistics.skipped)
        self.state.add(statistics.losses[:done], statistics.metric_terms, plan.indices.shape[1], applied)
        return finite

    def _limit(self, plan: Plan) -> RunEnd | None:
        """Return the run's end when a limit is reached or the user interrupts, at an update's edge."""
        if not plan.apply[-1]:
            return None
        asked = self.interrupted()
        if asked is not None:
            return self._stop_early(asked, "stopped by the user" if asked == "interrupted" else "told to end")
        reached = self._reached()
        return None if reached is None else self._stop_early(*reached)

    def _reached(self) -> tuple[str, str] | None:
        """Return reason and message when the run has reached a limit of the recipe."""
        if self.spec.max_steps is not None and self.state.updates >= self.spec.max_steps:
            return "step limit", f"reached max_steps: {self.spec.max_steps}"
        if self.spec.max_minutes is not None and self.state.seconds >= 60 * self.spec.max_minutes:
            return "time limit", f"reached max_minutes: {self.spec.max_minutes:g}"
        return None

    def _stop_early(self, reason: str, message: str) -> RunEnd:
        """End within an epoch: keep the state; measure validation, unless somebody is waiting for the end."""
        if self.state.batch == self.batches.batches_per_epoch:
            ended = self._end_epoch(0.0)
            self._keep()
            return ended or self._end(reason, message)
        # Before the measurement, which a run that goes on from here must not have seen.
        self._keep()
        if reason not in ("interrupted", "terminated"):
            self._measure()
            best = self._is_best(self.state.epoch + 1)
            self._tell_epoch(self.state.epoch + 1, 0.0, best)
        return self._end(reason, message)

    def _end_epoch(self, samples_per_second: float) -> RunEnd | None:
        """Measure, keep, tell, and decide whether to stop early."""
        state = self.state
        self._measure()
        state.epoch += 1
        if self._validation and self.schedule.monitor is not None:
            self.schedule.observe(float(self._validation[self.schedule.monitor]))
        best = self._is_best(state.epoch)
        if not self._prunes_on:
            self._monitor.count_patience(self._validation)
        stopping = self._monitor.lost_patience
        self._tell_epoch(state.epoch, samples_per_second, best)
        state.begin_epoch()
        last = bool(stopping) or state.epoch == self.spec.epochs
        if best or last or state.epoch % self.spec.checkpoint_every == 0 or self._keeping.is_due(self.state):
            self._keep()
        return self._end("early stopping", stopping) if stopping else None

    def _measure(self) -> None:
        if self.validate is not None:
            with span("evaluation"), evaluation_answered(self.spec):
                self._validation = self.validate()

    def _tell_epoch(self, epoch: int, samples_per_second: float, best: bool) -> None:
        self.state.seconds = self._seconds_before + time.perf_counter() - self._clock
        event = EpochDone(
            epoch,
            self.state.updates,
            self.state.values(self.metrics),
            self._validation,
            self._rate,
            self.state.seconds,
            samples_per_second,
            best,
        )
        with span("display and logs"):
            for observer in self.observers:
                observer.on_epoch(event)

    def _is_best(self, epoch: int) -> bool:
        return not self._prunes_on and self._monitor.is_best(epoch, self._validation)

    @property
    def _prunes_on(self) -> bool:
        """Whether more weights are to become zero: what is measured until then is of a denser model."""
        return self.pruner is not None and self.state.updates < self.pruner.end

    def _keep(self) -> None:
        self._keeping.keep(self.program, self.schedule, self.state)

    def _not_finite(self, plan: Plan, statistics: Statistics) -> RunEnd:
        row = plan.indices[len(statistics.losses) - 1]
        step = plan.first_step + len(statistics.losses) - 1
        return self._end("not finite", first_non_finite(self.program, self.data, row, step))

    def _end(self, reason: str, message: str) -> RunEnd:
        self.state.seconds = self._seconds_before + time.perf_counter() - self._clock
        scale = self._blocks.scale
        return RunEnd(
            reason,
            message,
            self.state.epoch,
            self.state.updates,
            self.state.seconds,
            self.state.best_epoch,
            self._validation,
            skipped=0 if scale is None else scale.skipped,
            loss_scale=None if scale is None else scale.value,
        )
