"""One verification, from a subject to a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from unitrain.backends.contract import Arrays, Precision
from unitrain.backends.precision import HALF
from unitrain.backends.versions import versions
from unitrain.spec.errors import InputError
from unitrain.verify.causes import Causes
from unitrain.verify.experiments import (
    Experiment,
    IsolatedLayers,
    Steps,
    WholeModel,
    block_probe,
    layer_steps,
    loss_probe,
    losses_probe,
    mask_probe,
    model_steps,
    optimizer_probe,
)
from unitrain.verify.experiments.layers import STEP, output_gradients
from unitrain.verify.exporters import FRAMEWORKS, exporters_checked
from unitrain.verify.findings import LEVELS, MODEL, Finding, Level, Report, TensorName, raised
from unitrain.verify.kinks import count_flips
from unitrain.verify.rounding import scaled_gradients
from unitrain.verify.rounding_flips import echoes_of_rounding
from unitrain.verify.runner import Array, Cast, Runner
from unitrain.verify.sign_flips import echoes_of_signs, takes_signs
from unitrain.verify.subject import Subject
from unitrain.verify.trajectory import Trajectories
from unitrain.verify.transfer import transfer
from unitrain.verify.verdict import Verdict, judge

Tell = Callable[[str], None]
Tensors = dict[TensorName, Array]

# What is compared in 16 bits. To train takes float32 copies of the weights: that is mixed precision, whose updates are
# float32's, of gradients that are compared here.
HALF_LEVELS: frozenset[Level] = frozenset({"forward", "backward"})


def verify(
    subject: Subject,
    backends: Mapping[str, str],
    *,
    levels: Collection[Level] = LEVELS,
    precision: Precision = "float32",
    steps: int = 200,
    exporters: bool = False,
    tell: Tell = lambda message: None,
) -> Report:
    """Show that backends compute what the reference computes.

    Parameters
    ----------
    subject
        The model, its data and its training.
    backends
        Names and devices: ``{"keras": "cpu", "torch": "cuda:0"}``.
    levels
        What is compared; see `findings.LEVELS`.
    precision
        In which the backends work. In 16 bits all, the reference too, start from weights, inputs and gradients that are
        rounded to it, and `HALF_LEVELS` are compared.
    steps
        Length of the trajectories, in batches.
    exporters
        Whether the transfer of weights includes ONNX models that the frameworks' own exporters write, where ONNX
        Runtime is among the backends.
    tell
        Told what is being done.

    Raises
    ------
    InputError
        A backend or device is not there, no backend computes in the precision, or no level is left.
    """
    cast = Cast.of(backends, precision, subject.seed)
    if precision not in HALF:
        return Session(subject, cast, frozenset(levels), steps, exporters, tell).run()
    kept = frozenset(levels) & HALF_LEVELS
    if not kept:
        raise InputError(
            f"in {precision} results and gradients are compared, and no training",
            field=("level",),
            found=", ".join(level for level in LEVELS if level in levels),
            allowed=", ".join(level for level in LEVELS if level in HALF_LEVELS),
        )
    report = Session(subject.rounded(precision), cast, kept, steps, tell=tell).run()
    out = ", ".join(level for level in LEVELS if level in levels and level not in kept)
    report.notes += [f"left out in {precision}, which is compared in results and gradients alone: {out}"] if out else []
    return report


@dataclass
class Session:
    """A verification under way; arguments as of `verify`."""

    subject: Subject
    cast: Cast
    levels: frozenset[Level]
    steps: int = 200
    exporters: bool = False
    tell: Tell = lambda message: None
    report: Report = field(init=False)
    _expected: dict[int, dict[str, dict[TensorName, Array]]] = field(init=False, default_factory=dict)
    _experiments: list[Experiment] = field(init=False, default_factory=list)

    def run(self) -> Report:
        """Do all levels, and look for the causes of what failed."""
        subject = self.subject
        kind = "of the recipe's data" if subject.real else "drawn within the inputs' ranges"
        self.report = Report(
            subject.name,
            tuple(runner.label for runner in self.cast.candidates),
            self._precision,
            tuple(level for level in LEVELS if level in self.levels),
            subject.seed,
            f"batches of {subject.batch_size} samples, {kind}",
            layers={node.name: node.layer.type for node in subject.graph.nodes},
            devices={runner.label: runner.device for runner in self.cast.candidates},
            versions=versions(runner.label for runner in self.cast.candidates),
        )
        self.report.notes += self.cast.left_out
        gradients = scaled_gradients(output_gradients(subject, self.cast.reference), self._precision)
        if self.levels & {"forward", "backward"}:
            with self._timed("forward and backward"):
                self._compare(IsolatedLayers(subject, gradients, self.levels, self._precision))
                self._compare(WholeModel(subject, gradients, self.levels, precision=self._precision))
        if "step" in self.levels:
            with self._timed("step"):
                self._step(gradients)
        if "trajectory" in self.levels and subject.losses:
            with self._timed("trajectory"):
                self._trajectory()
        if "transfer" in self.levels:
            with self._timed("transfer"):
                self._transfer()
        if self.report.failures:
            with self._timed("diagnosis"):
                self.report.causes = Causes(self.report, subject, self.cast, self._experiments, self.tell).find()
        return self.report

    @property
    def _precision(self) -> Precision:
        return self.cast.candidates[0].precision if self.cast.candidates else "float32"

    def _step(self, gradients: Arrays) -> None:
        subject = self.subject
        if not subject.losses:
            self.report.notes.append("no output is trained: no training steps")
            return
        reference = self.cast.reference
        program = reference.program("model", subject.graph, subject.weights, subject.rule())
        program.load_weights(subject.weights)
        outputs = program.predict(subject.batch(0).inputs)
        probe = optimizer_probe(subject)
        probes = [probe, block_probe(probe)]
        shaped = [output for output in subject.losses if subject.graph.shape(subject.graph.outputs[output])]
        probes += [loss_probe(subject, output, outputs[output]) for output in shaped]
        probes += [item for item in (losses_probe(subject), mask_probe(subject)) if item is not None]
        if set(subject.graph.parameters) != set(subject.graph.trainable):
            layers = IsolatedLayers(subject, gradients, self.levels)
            probes.append(layer_steps(layers))
        for steps in (*probes, model_steps(subject)):
            steps.begin(reference)
            self._compare(steps)

    def _compare(self, experiment: Experiment) -> None:
        """Let everybody do an experiment, and judge what comes out."""
        self._experiments.append(experiment)
        right = experiment.tensors(self.cast.reference)
        others = [experiment.tensors(runner) for runner in self.cast.yardsticks]
        if isinstance(experiment, IsolatedLayers) or (isinstance(experiment, Steps) and experiment.by_layer):
            self._check_reference(experiment, right, others)
        for runner in self.cast.candidates:
            self.tell(f"{type(experiment).__name__} on {runner.label}")
            try:
                found = experiment.tensors(runner)
            except InputError:
                raise
            except Exception as error:  # whatever a framework raises is a finding, and the other backends go on
                level: Level = "step" if isinstance(experiment, Steps) else "forward"
                self.report.findings.append(_raised(runner, level, type(experiment).__name__, error))
                if isinstance(experiment, IsolatedLayers):
                    self._one_by_one(runner, experiment, right, others)
                continue
            wanted = right.keys() if runner.trains else found.keys()
            findings = self._judged(runner, wanted, found, right, others)
            if isinstance(experiment, WholeModel) and not self._at_fault(runner):
                findings = echoes_of_rounding(self.subject, findings, found, right)
            if isinstance(experiment, Steps) and self._may_turn(experiment) and not self._at_fault(runner):
                pairs = zip(self.cast.yardsticks, others, strict=True)
                moved = [(one, tensors) for one, tensors in pairs if one.moved]
                findings = echoes_of_signs(self.subject, experiment, moved, findings, found, right)
            self.report.findings += self._excused(runner, experiment, findings)

    def _may_turn(self, steps: Steps) -> bool:
        """Tell whether updates of the whole model go by signs, which rounding may turn."""
        return takes_signs(self.subject.optimizer) and not steps.isolated and not steps.part

    def _judged(
        self, runner: Runner, wanted: Collection[TensorName], found: Tensors, right: Tensors, others: list[Tensors]
    ) -> list[Finding]:
        findings = []
        for name in wanted:
            if name in found:
                verdict = judge(
                    found[name],
                    right[name],
                    *(other[name] for other in others),
                    growth=name.growth,
                    precision=runner.precision,
                )
            else:
                verdict = Verdict(False, np.inf, np.inf, 1.0, "is missing")
            findings.append(Finding(runner.label, name, verdict))
        return findings

    def _one_by_one(self, runner: Runner, layers: IsolatedLayers, right: Tensors, others: list[Tensors]) -> None:
        """Compare layers each in a graph of its own, where together they raised an error: some of them do."""
        for node in layers.graph.nodes:
            alone = layers.alone(node)
            try:
                found = alone.tensors(runner)
            except InputError:
                raise
            except Exception as error:
                self.report.findings += self._forward_alone(runner, alone, right, others, error)
                continue
            self.report.findings += self._judged(runner, found.keys(), found, right, others)

    def _forward_alone(
        self, runner: Runner, alone: IsolatedLayers, right: Tensors, others: list[Tensors], error: Exception
    ) -> list[Finding]:
        """Say what is wrong with the results of a layer that raised an error, such as their shape; else the error."""
        try:
            found = alone.outputs(runner)
        except Exception:
            found = {}
        wrong = [item for item in self._judged(runner, found.keys(), found, right, others) if item.failed]
        name = TensorName("forward", alone.graph.nodes[0].name, "output", "training", True)
        return wrong or [raised(runner.label, name, error)]

    def _check_reference(self, experiment: Experiment, right: Tensors, others: list[Tensors]) -> None:
        """See that NumPy's two ways to compute are one and the same in float64: a yardstick must not hide a fault."""
        for name, array in experiment.tensors(self.cast.twin).items():
            verdict = judge(array, right[name], *(other[name] for other in others), growth=name.growth)
            if not verdict.passed:
                self.report.findings.append(Finding("numpy", name, verdict))

    def _excused(self, runner: Runner, experiment: Experiment, findings: list[Finding]) -> list[Finding]:
        """Excuse gradients of the whole model where rounding moved a value over a kink; they are counted."""
        suspects = [
            item for item in findings if item.failed and not item.name.isolated and item.name.level != "forward"
        ]
        if not suspects or not runner.trains or self._at_fault(runner):
            return findings
        batches = {"backward": [0], "step": range(4 * min(self.subject.accumulate, 4))}
        flipped: dict[str, str] = {}
        for level in {item.name.level for item in suspects}:
            for number in batches.get(level, ()):
                state = self._state(experiment, number)
                layer = self._flip(runner, number, state)
                if layer:
                    flipped.setdefault(level, layer)
        return [
            replace(item, excuse=f"flip in {flipped[item.name.level]}")
            if item in suspects and item.name.level in flipped
            else item
            for item in findings
        ]

    def _at_fault(self, runner: Runner) -> bool:
        """Tell whether a part of a backend fails by itself: then its flips need not be rounding's."""
        return any(item.failed and item.name.isolated and item.backend == runner.label for item in self.report.findings)

    def _state(self, experiment: Experiment, number: int) -> Arrays:
        """Return the weights with which an experiment passes through a batch."""
        states = experiment.states if isinstance(experiment, Steps) else []
        if not states:
            return self.subject.weights
        return states[min(number // self.subject.accumulate, len(states) - 1)].weights

    def _flip(self, runner: Runner, number: int, weights: Arrays) -> str:
        """Name the first layer of which a backend sees a kink on another side than the reference; or nothing."""
        subject = self.subject
        inputs = subject.batch(number).inputs
        values, held = [], []
        for one in (self.cast.reference, runner):
            program = one.program("model", subject.graph, subject.weights)
            held.append(one.given(weights, "model"))
            program.load_weights(held[-1])
            values.append({**inputs, **program.activations(inputs, training=True, step=STEP)})
        return next(iter(count_flips(subject.graph, values[0], values[1], (held[0], held[1]))), "")

    def _trajectory(self) -> None:
        findings, lines = Trajectories(self.subject, self.cast, self.steps, self._at_fault, self.tell).run()
        self.report.findings += findings
        self.report.trajectories = lines

    def _transfer(self) -> None:
        for runner in self.cast.candidates:
            self.tell(f"weights through {runner.label}")
            try:
                self.report.findings += transfer(self.subject, self.cast, runner)
            except InputError:
                raise
            except Exception as error:
                self.report.findings.append(_raised(runner, "transfer", "weights in and out", error))
        labels = [runner.label for runner in self.cast.candidates]
        if self.exporters and "onnx" in labels and self._precision == "float32":
            frameworks = tuple(framework for framework in FRAMEWORKS if framework in labels)
            findings, notes = exporters_checked(self.subject, frameworks, self.tell)
            self.report.findings += findings
            self.report.notes += notes

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.report.seconds[what] = time.perf_counter() - started


def _raised(runner: Runner, level: Level, what: str, error: Exception) -> Finding:
    return raised(runner.label, TensorName(level, MODEL, what, "training"), error)
