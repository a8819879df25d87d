"""The shared trainer: plans blocks of steps, hands them to a program, and decides at their edges."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Batchable, Plan, Program, Statistics
from unitrain.spans import span
from unitrain.spec.errors import InputError
from unitrain.spec.training import TrainingSpec
from unitrain.train.checkpoint import Checkpoint
from unitrain.train.diagnosis import first_non_finite
from unitrain.train.events import BlockDone, EpochDone, Observer, RunEnd
from unitrain.train.feed import Augment, Feed, Teach, make_feed
from unitrain.train.loss_scale import LossScale
from unitrain.train.memory import answered, evaluation_answered
from unitrain.train.metrics import HostMetric
from unitrain.train.plan import Batches, BlockLength
from unitrain.train.pruning import Pruner
from unitrain.train.schedules import Schedule
from unitrain.train.state import TrainingState
from unitrain.train.update import Update

_OVERFLOW = "gradients overflow float16 at every loss scale down to 1: mixed_bfloat16 has the range of float32"


class Validation(Protocol):
    """Measures the validation set with the weights a program has now: ``{"loss": ..., label: ...}``."""

    def __call__(self) -> dict[str, Any]:
        """Predict and measure."""
        ...


class Keeper(Protocol):
    """Keeps checkpoints."""

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; it may be written while training goes on."""
        ...

    def close(self) -> None:
        """Wait until all is written."""
        ...


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
    _kept: int = field(init=False, default=-1)
    _kept_at: float = field(init=False, default=0.0)

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
        self._seconds_before = self._kept_at = self.state.seconds
        self._kept = self.state.batches
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
            end = self.batches.block_end(first, min(self._block_length.length, feed.longest))
            plan, rates = self._plan(order, first, self._within_limits(first, end))
            started = time.perf_counter()
            with answered(self.spec):
                statistics = feed.run(plan)
            self._rate = float(rates[-1])
            seconds = time.perf_counter() - started
            self._block_length.observe(len(statistics.losses), seconds)
            if not self._account(plan, statistics):
                return self._not_finite(plan, statistics)
            if self._scale is not None and self._scale.exhausted:
                return self._end("not finite", _OVERFLOW)
            if plan.apply[-1]:
                self._prune()
            state.seconds = self._seconds_before + time.perf_counter() - self._clock
            event = BlockDone(
                state.epoch + 1,
                state.batch,
                self.training_values(),
                self._rate,
                plan.indices.size / max(seconds, 1e-9),
            )
            with span("display and logs"):
                for observer in self.observers:
                    observer.on_block(event)
            stop = self._limit(plan)
            if stop is not None:
                return stop
            if plan.apply[-1] and self._is_due() and state.batch < self.batches.batches_per_epoch:
                self._keep()
        return None

    def _over_before(self) -> RunEnd | None:
        """Return the end of a run that had come to it when it was broken off."""
        if self._patience_has_run_out():
            return self._end("early stopping", self._patience_message())
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

    @property
    def _scale(self) -> LossScale | None:
        """The loss scale, where there is one."""
        return self.state.loss_scale if self.spec.precision == "mixed_float16" else None

    def _within_limits(self, first: int, end: int) -> int:
        """Shorten a block: the limit of updates, a change of the loss scale, and pruning lie at the edge of one."""
        first_group = first - first % self.batches.accumulate
        limits = [] if self.spec.max_steps is None else [self.spec.max_steps - self.state.updates]
        limits += [] if self._scale is None else [self._scale.room]
        room = None if self.pruner is None else self.pruner.room(self.state.updates)
        limits += [] if room is None else [room]
        ends = [first_group + left * self.batches.accumulate for left in limits]
        if self.spec.checkpoint_steps is not None:
            # Up to the update with which the next checkpoint is due.
            due = first + max(1, self._kept + self.spec.checkpoint_steps - self.state.batches)
            ends.append(-(-due // self.batches.accumulate) * self.batches.accumulate)
        return max(first + 1, min([end, *ends]))

    def _plan(self, order: npt.NDArray[np.int32], first: int, end: int) -> tuple[Plan, npt.NDArray[np.float64]]:
        groups = [self.batches.group(batch) for batch in range(first, end)]
        apply = np.array([last for _, last in groups])
        scale = np.array([factor for factor, _ in groups])
        # Number of the update that each batch contributes to, counted from the first of this block.
        number = np.cumsum(apply) - apply
        count = int(number[-1]) + 1
        rates = self.schedule.learning_rates(self.state.updates, count)
        coefficients = self.update.coefficients(rates, self.state.updates)[number]
        rows = self.batches.rows(order, first, end)
        loss_scale = None if self._scale is None else self._scale.value
        return Plan(rows, coefficients, scale, apply, self.state.batches, loss_scale), rates

    def _account(self, plan: Plan, statistics: Statistics) -> bool:
        """Add a block to the state; return False when its last loss is not finite."""
        state = self.state
        finite = bool(np.isfinite(statistics.losses).all())
        finite &= len(statistics.losses) == len(plan) or statistics.skipped
        done = len(statistics.losses) - (0 if finite else 1)
        batch_size = plan.indices.shape[1]
        state.batch += done
        state.batches += done
        applied = int(plan.apply[:done].sum()) - statistics.skipped
        state.updates += applied
        if self._scale is not None:
            self._scale.observe(applied, statistics.skipped)
        state.samples += done * batch_size
        state.loss_sum = float(_added(state.loss_sum, statistics.losses[:done] * batch_size))
        for label, terms in statistics.metric_terms.items():
            numerator, denominator = _added(state.metric_terms.get(label, (0.0, 0.0)), terms).tolist()
            state.metric_terms[label] = (numerator, denominator)
        return finite

    def training_values(self) -> dict[str, float]:
        """Return the mean loss and the metrics of the epoch under way."""
        values = {"loss": self.state.loss_sum / max(self.state.samples, 1)}
        for label, (numerator, denominator) in self.state.metric_terms.items():
            values[label] = self.metrics[label].finish(numerator / denominator if denominator else math.nan)
        return values

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
        self._count_patience()
        stopping = self._patience_has_run_out()
        self._tell_epoch(state.epoch, samples_per_second, best)
        state.begin_epoch()
        last = stopping or state.epoch == self.spec.epochs
        if best or last or state.epoch % self.spec.checkpoint_every == 0 or self._is_due():
            self._keep()
        return self._end("early stopping", self._patience_message()) if stopping else None

    def _measure(self) -> None:
        if self.validate is not None:
            with span("evaluation"), evaluation_answered(self.spec):
                self._validation = self.validate()

    def _tell_epoch(self, epoch: int, samples_per_second: float, best: bool) -> None:
        self.state.seconds = self._seconds_before + time.perf_counter() - self._clock
        event = EpochDone(
            epoch,
            self.state.updates,
            self.training_values(),
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
        """Remember the monitored value if it is the best so far; return whether it is."""
        monitor = self.spec.keep_best
        if self._prunes_on:
            return False
        if monitor is None or not self._validation or not self._is_better(monitor, self.state.best_value):
            return False
        self.state.best_value = float(self._validation[monitor])
        self.state.best_epoch, self.state.best_step = epoch, self.state.batches
        return True

    def _count_patience(self) -> None:
        """Count evaluations without improvement."""
        rule = self.spec.early_stopping
        if rule is None or not self._validation or self._prunes_on:
            return
        if self._is_better(rule.monitor, self.state.stopping_best, rule.minimum_change):
            self.state.stopping_best = float(self._validation[rule.monitor])
            self.state.bad_evaluations = 0
        else:
            self.state.bad_evaluations += 1

    def _patience_has_run_out(self) -> bool:
        rule = self.spec.early_stopping
        return rule is not None and self.state.bad_evaluations > rule.patience

    def _patience_message(self) -> str:
        monitor = self.spec.early_stopping.monitor if self.spec.early_stopping is not None else "loss"
        return f"validation {monitor} has not improved for {self.state.bad_evaluations} evaluations"

    @property
    def _prunes_on(self) -> bool:
        """Whether more weights are to become zero: what is measured until then is of a denser model."""
        return self.pruner is not None and self.state.updates < self.pruner.end

    def _is_better(self, monitor: str, best: float | None, minimum_change: float = 0.0) -> bool:
        value = float(self._validation[monitor])
        if best is None:
            return not math.isnan(value)
        metric = self.metrics.get(monitor)
        sign = 1.0 if metric is not None and metric.higher_is_better else -1.0
        return sign * value > sign * best + minimum_change

    def _is_due(self) -> bool:
        """Tell whether the last checkpoint is old: in batches or in minutes."""
        steps, minutes = self.spec.checkpoint_steps, self.spec.checkpoint_minutes
        return (steps is not None and self.state.batches - self._kept >= steps) or (
            minutes is not None and self.state.seconds - self._kept_at >= 60 * minutes
        )

    def _keep(self) -> None:
        """Keep a checkpoint of where the run stands, unless that is done; what training changes later is copied."""
        if self._kept == self.state.batches:
            return
        self._kept, self._kept_at = self.state.batches, self.state.seconds
        if self.keeper is not None:
            with span("checkpoint"):
                self.state.schedule = self.schedule.state()
                self.keeper.keep(Checkpoint(self.program.weights(), self.program.slots(), deepcopy(self.state)))

    def _not_finite(self, plan: Plan, statistics: Statistics) -> RunEnd:
        row = plan.indices[len(statistics.losses) - 1]
        step = plan.first_step + len(statistics.losses) - 1
        return self._end("not finite", first_non_finite(self.program, self.data, row, step))

    def _end(self, reason: str, message: str) -> RunEnd:
        self.state.seconds = self._seconds_before + time.perf_counter() - self._clock
        return RunEnd(
            reason,
            message,
            self.state.epoch,
            self.state.updates,
            self.state.seconds,
            self.state.best_epoch,
            self._validation,
            skipped=0 if self._scale is None else self._scale.skipped,
            loss_scale=None if self._scale is None else self._scale.value,
        )


def _added(before: npt.ArrayLike, terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Add to a sum what came after it, step by step: the last bit does not depend on how steps are cut into blocks."""
    start = np.asarray(before, np.float64)[np.newaxis]
    return np.asarray(np.add.accumulate(np.concatenate([start, terms]), axis=0)[-1])
