"""Whole training runs: how far each backend strays from the reference, and whether rounding explains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from unitrain.backends.contract import Plan, Program
from unitrain.spec.errors import InputError
from unitrain.verify.findings import MODEL, Finding, TensorName, Trajectory, raised
from unitrain.verify.growth import inherited_growth
from unitrain.verify.kinks import count_flips
from unitrain.verify.runner import Array, Cast, Runner
from unitrain.verify.sign_flips import directions, momentum, sign_flips, takes_signs
from unitrain.verify.subject import Subject, rows_of
from unitrain.verify.verdict import Verdict, judge
from unitrain.weights.random import stream

# How often weights are compared in a run.
POINTS = 20
# A run amplifies what rounding leaves, and most where a gradient is nothing else: a few runs do not show by how much at
# most. Of 640 drawn models one strayed twice as far as the bound allows for one step, and one in a hundred five times.
DRIFT = 8.0


@dataclass
class Course:
    """One run: weights and optimizer state at the points, and the losses of all steps."""

    weights: list[dict[str, Array]] = field(default_factory=list)
    slots: list[dict[str, dict[str, Array]]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


@dataclass
class Trajectories:
    """Training runs of ``steps`` batches by all who take part.

    Parameters
    ----------
    subject, cast, steps
        What is trained, by whom, for how long.
    at_fault
        Whether a part of a backend is known to fail by itself: then no flip excuses it.
    tell
        Told what is going on.
    """

    subject: Subject
    cast: Cast
    steps: int
    at_fault: Callable[[Runner], bool] = lambda runner: False
    tell: Callable[[str], None] = lambda message: None

    def run(self) -> tuple[list[Finding], list[Trajectory]]:
        """Train everybody, and judge the changes of the weights at each point."""
        reference = self._train(self.cast.reference)
        yardsticks = {runner.label: self._train(runner) for runner in self.cast.yardsticks}
        findings: list[Finding] = []
        lines = [
            Trajectory(label, self._points(course), self._distances(course, reference), tuple(course.losses))
            for label, course in yardsticks.items()
        ]
        for runner in self.cast.candidates:
            if not runner.trains:
                continue
            try:
                course = self._train(runner)
            except InputError:
                raise
            except Exception as error:  # is a finding, and the other backends go on
                name = TensorName("trajectory", MODEL, f"{self.steps} steps", "training")
                findings.append(raised(runner.label, name, error))
                continue
            found = self._judge(runner, course, reference, list(yardsticks.values()))
            outcome, flips = self._outcome(runner, course, reference, found)
            excuse = outcome.removeprefix("PASS until a ") if outcome.startswith("PASS until") else ""
            findings += [
                Finding(runner.label, name, verdict, "" if verdict.passed else excuse) for name, verdict in found
            ]
            distances = self._distances(course, reference)
            lines.append(
                Trajectory(runner.label, self._points(course), distances, tuple(course.losses), outcome, flips)
            )
        return findings, lines

    @property
    def _edges(self) -> list[int]:
        group = self.subject.accumulate
        updates = -(-self.steps // group)
        edges = np.unique(np.linspace(0, updates, min(POINTS, updates) + 1).astype(int))
        return [int(edge) * group for edge in edges]

    def _plan(self, first: int, end: int) -> Plan:
        subject, group = self.subject, self.subject.accumulate
        update = subject.update()
        numbers = np.arange(first, end) // group
        coefficients = update.coefficients(subject.rates(0, int(numbers[-1]) + 1), 0)
        return Plan(
            np.stack([self._rows(step) for step in range(first, end)]),
            coefficients[numbers],
            np.full(end - first, 1.0 / group),
            np.arange(first, end) % group == group - 1,
            first,
        )

    def _rows(self, step: int) -> Array:
        """Draw the batch of a step: in another order in every pass through the data."""
        subject = self.subject
        batches = max(len(subject.data) // subject.batch_size, 1)
        order = stream(subject.seed, "verify", "order", step // batches).permutation(len(subject.data))
        first = (step % batches) * subject.batch_size
        return order[first : first + subject.batch_size].astype(np.int32)

    def _train(self, runner: Runner) -> Course:
        self.tell(f"{self.steps} steps on {runner.label}")
        program = self._begin(runner)
        placed = program.place(self.subject.data)
        course = Course([program.weights()], [program.slots()])
        for first, end in pairwise(self._edges):
            losses = self._block(runner, program, placed, first, end)
            course.losses += losses
            course.weights.append(program.weights())
            course.slots.append(program.slots())
            if len(losses) < end - first or not np.isfinite(losses).all():
                break
        return course

    def _block(self, runner: Runner, program: Program, placed: Any, first: int, end: int) -> list[float]:
        """Train from one step to another, and return the losses.

        Where numbers are moved, the weights are so after every update: float32 rounds the sum of weight and step each
        time, by half an ulp of the weight, which is more than the step loses and adds up from update to update.
        """
        losses: list[float] = []
        length = self.subject.accumulate if runner.moved else end - first
        for start in range(first, end, length):
            found = program.run_steps(placed, self._plan(start, start + length)).losses
            losses += [float(loss) for loss in found]
            if len(found) < length:
                break
            if runner.moved:
                program.load_weights(runner.given(program.weights(), f"model after step {start + length}"))
        return losses

    def _begin(self, runner: Runner) -> Program:
        subject = self.subject
        program = runner.program("model", subject.graph, subject.weights, subject.rule())
        program.load_weights(runner.given(subject.weights, "model"))
        slots = program.slots()
        program.load_slots(
            {
                slot: {
                    name: subject.weights[name] if slot == "ema" else np.zeros_like(array)
                    for name, array in arrays.items()
                }
                for slot, arrays in slots.items()
            }
        )
        return program

    def _points(self, course: Course) -> tuple[int, ...]:
        return tuple(self._edges[1 : len(course.weights)])

    def _judge(
        self, runner: Runner, course: Course, reference: Course, yardsticks: list[Course]
    ) -> list[tuple[TensorName, Verdict]]:
        found: list[tuple[TensorName, Verdict]] = []
        owners = {name: node.owner for node in self.subject.graph.nodes for name in node.parameters.values()}
        growth = DRIFT * max(inherited_growth(self.subject.graph, self.subject.batch_size, training=True).values())
        for point, step in enumerate(self._edges[1:], start=1):
            if point >= len(reference.weights):
                break
            if point >= len(course.weights):
                continue
            for name in self.subject.graph.parameters:
                tensor = TensorName(
                    "trajectory", owners[name], f"change of {name}, step {step}", "training", False, growth
                )
                change = _change(course, point, name).astype(runner.precision)
                others = [_change(other, point, name) for other in yardsticks if point < len(other.weights)]
                found.append((tensor, judge(change, _change(reference, point, name), *others, growth=growth)))
        losses, right = np.array(course.losses), np.array(reference.losses)
        others = [np.array(other.losses) for other in yardsticks if len(other.losses) == len(right)]
        verdict = judge(losses.astype(runner.precision), right, *others, growth=growth)
        tensor = TensorName("trajectory", MODEL, f"losses of {self.steps} steps", "training", False, growth)
        found.append((tensor, verdict))
        return found

    def _distances(self, course: Course, reference: Course) -> tuple[float, ...]:
        distances = []
        for point in range(1, min(len(course.weights), len(reference.weights))):
            strayed = moved = 0.0
            for name in self.subject.graph.parameters:
                right = _change(reference, point, name)
                strayed += float(np.square(_change(course, point, name) - right).sum())
                moved += float(np.square(right).sum())
            distances.append(float(np.sqrt(strayed / moved)) if moved else 0.0)
        return tuple(distances)

    def _outcome(
        self, runner: Runner, course: Course, reference: Course, found: list[tuple[TensorName, Verdict]]
    ) -> tuple[str, tuple[int, ...]]:
        """Say whether a run passes, and count the flips at its points.

        A run that strays after a flip, and had not strayed before it, passes until then.
        """
        flips = tuple(
            sum(self._flips(course.weights[point], reference.weights[point], step).values())
            for point, step in enumerate(self._edges[1 : len(course.weights)], start=1)
            if point < len(reference.weights)
        )
        failing = [name.tensor for name, verdict in found if not verdict.passed]
        if not failing:
            return "PASS", flips
        strayed = min(
            (int(tensor.rpartition("step ")[2]) for tensor in failing if ", step " in tensor), default=self.steps
        )
        flip = None if self.at_fault(runner) else self._first_flip(runner, strayed)
        if flip is None:
            return "FAIL", flips
        return f"PASS until a flip at step {flip[0]} in {flip[1]}", flips

    def _flips(self, theirs: Mapping[str, Array], ours: Mapping[str, Array], step: int) -> dict[str, int]:
        """Count the kinks that two sets of weights see on different sides, on the batch of a step."""
        graph = self.subject.graph
        inputs = rows_of(self.subject.data, self._rows(step)).inputs
        values = []
        program = self.cast.reference.program("model", graph, self.subject.weights, self.subject.rule())
        for weights in (ours, theirs):
            program.load_weights(weights)
            found = program.activations(inputs, training=True, step=step)
            values.append({**inputs, **found})
        return count_flips(graph, values[0], values[1], (ours, theirs))

    def _first_flip(self, runner: Runner, last: int) -> tuple[int, str] | None:
        """Train again, batch by batch, up to step ``last``: the first step with a flip, and its layer or parameter."""
        self.tell(f"looking for flips of {runner.label}")
        theirs, ours = self._begin(runner), self._begin(self.cast.reference)
        placed, placed_twin = theirs.place(self.subject.data), ours.place(self.subject.data)
        signs = SignWatch(self, ours, theirs) if takes_signs(self.subject.optimizer) else None
        for first in range(last):
            inputs = rows_of(self.subject.data, self._rows(first)).inputs
            values = [
                {**inputs, **program.activations(inputs, training=True, step=first)} for program in (ours, theirs)
            ]
            flips = count_flips(self.subject.graph, values[0], values[1], (ours.weights(), theirs.weights()))
            if flips:
                return first, next(iter(flips))
            plan = self._plan(first, first + 1)
            theirs.run_steps(placed, plan)
            ours.run_steps(placed_twin, plan)
            flips = signs.after(first, plan) if signs is not None and plan.apply[0] else {}
            if flips:
                return first, f"the sign of {next(iter(flips))}"
        return None


class SignWatch:
    """Compares the signs by which two programs step, beside runs from moved numbers; see `sign_flips`."""

    def __init__(self, trajectories: Trajectories, ours: Program, theirs: Program) -> None:
        self._trajectories = trajectories
        self._pair = (ours, theirs)
        self._moved = [
            (runner, program, program.place(trajectories.subject.data))
            for runner in trajectories.cast.yardsticks
            if runner.moved
            for program in (trajectories._begin(runner),)
        ]
        self._look()

    def _look(self) -> None:
        self._weights = [program.weights() for program in self._pair]
        self._momentum = [momentum(program) for program in (self._pair[0], *(program for _, program, _ in self._moved))]

    def after(self, step: int, plan: Plan) -> dict[str, int]:
        """Count the flips of the update that the batch ``step`` ended in, which both programs have taken."""
        subject, weights, before = self._trajectories.subject, self._weights, self._momentum
        for runner, program, placed in self._moved:
            self._trajectories._block(runner, program, placed, step + 1 - subject.accumulate, step + 1)
        self._look()
        right, *moved = (directions(subject.optimizer, *pair) for pair in zip(before, self._momentum, strict=True))
        ours, theirs = (
            {name: new[name].astype(np.float64) - old[name] for name in right}
            for old, new in zip(weights, self._weights, strict=True)
        )
        length = float(subject.rates(0, step // subject.accumulate + 1)[-1])
        return sign_flips(right, moved, ours, theirs, length)


def _change(course: Course, point: int, name: str) -> Array:
    return course.weights[point][name].astype(np.float64) - course.weights[0][name]
