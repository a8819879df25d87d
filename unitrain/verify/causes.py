"""From many failing tensors to their causes: the first part of each backend that fails by itself, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from unitrain.spec.errors import InputError
from unitrain.spec.optimizers import Optimizer
from unitrain.verify.diagnosis import Evidence, explain_layer, explain_loss, explain_losses, explain_optimizer
from unitrain.verify.diagnosis.evidence import STATISTICS, Task
from unitrain.verify.experiments import Experiment, IsolatedLayers, Steps
from unitrain.verify.experiments.layers import MODES, STEP
from unitrain.verify.experiments.steps import IN_ONE_BLOCK
from unitrain.verify.findings import LOSS, LOSSES, MODEL, OPTIMIZER, Cause, Finding, Report, TensorName
from unitrain.verify.isolation import input_name
from unitrain.verify.runner import Array, Cast, Runner
from unitrain.verify.subject import Subject
from unitrain.verify.transfer import IN_AND_OUT
from unitrain.verify.verdict import judge

# Causes that are explained, a backend: where more fail, one reason stands behind most of them.
EXPLAINED = 6


@dataclass
class Causes:
    """The search for the causes of a report's failures.

    Parameters
    ----------
    report, subject, cast
        Of the verification.
    experiments
        What was compared.
    tell
        Told what is being done.
    """

    report: Report
    subject: Subject
    cast: Cast
    experiments: Sequence[Experiment]
    tell: Callable[[str], None] = lambda message: None
    _found: dict[str, dict[TensorName, Array]] = field(init=False, default_factory=dict)

    def find(self) -> list[Cause]:
        """Return the causes, backend by backend in the order of the graph.

        What fails by itself is a cause. Where nothing does, the first part that fails in the whole model is named.
        Where all other backends fail alike and agree with each other, NumPy is the one that is wrong.
        """
        causes: list[Cause] = []
        for runner in self.cast.candidates:
            failures = [item for item in self.report.failures if item.backend == runner.label]
            # Weights that come back otherwise make all that is read from them look wrong.
            lost = [item for item in failures if item.name.tensor.endswith(IN_AND_OUT)]
            isolated = [] if lost else [item for item in failures if item.name.isolated]
            chosen = sorted(lost or isolated or self._first(failures), key=self._place)
            groups = [(part, list(group)) for part, group in groupby(chosen, key=lambda item: item.name.part)]
            for number, (part, group) in enumerate(groups):
                cause = self._cause(runner.label, part, group)
                if isolated and number < EXPLAINED:
                    self.tell(f"diagnosis of {part} on {runner.label}")
                    cause = replace(cause, diagnosis=self._explained(runner, part, group))
                elif isolated:
                    cause = replace(cause, diagnosis="fails by itself too; not examined")
                elif lost:
                    cause = replace(cause, diagnosis=f"{group[0].name.tensor}: {group[0].verdict.reason}")
                elif not isolated and part != MODEL and cause.level in ("forward", "backward"):
                    cause = replace(cause, diagnosis="right by itself: what it is given in the model is wrong")
                causes.append(cause)
        return self._reference_causes() + self._blamed(causes)

    def _reference_causes(self) -> list[Cause]:
        """Return the layers that NumPy itself computes in two ways that disagree."""
        wrong = [item for item in self.report.failures if item.backend == "numpy" and item.name.isolated]
        if any(runner.label == "numpy" for runner in self.cast.candidates):
            wrong = []  # found as that of a backend
        causes = []
        for part, group in groupby(sorted(wrong, key=self._place), key=lambda item: item.name.part):
            cause = self._cause("numpy", part, list(group))
            causes.append(replace(cause, diagnosis="the reference's formula is not that of its twin: NumPy is wrong"))
        return causes

    def _first(self, failures: list[Finding]) -> list[Finding]:
        """Return the failures of the first part that fails, at the first level where one does."""
        if not failures:
            return []
        level = failures[0].name.level
        here = [item for item in failures if item.name.level == level]
        part = min(here, key=self._place).name.part
        return [item for item in here if item.name.part == part]

    def _place(self, finding: Finding) -> tuple[int, str]:
        order = [*self.report.layers, OPTIMIZER]
        part = finding.name.part
        return (order.index(part) if part in order else len(order) + (part == MODEL), part)

    def _cause(self, backend: str, part: str, failures: list[Finding]) -> Cause:
        failures.sort(key=lambda item: -item.verdict.ratio)
        kind: str
        if part == OPTIMIZER:
            kind = self.subject.optimizer.type
        elif part.startswith(f"{LOSS} of "):
            kind = self.subject.losses[part.removeprefix(f"{LOSS} of ")].loss.type
        else:
            kind = self.report.layers.get(part, "")
        tensors = tuple(dict.fromkeys(item.name.tensor for item in failures))
        reasons = {item.verdict.reason for item in failures if item.verdict.reason}
        level = failures[0].name.level
        diagnosis = reasons.pop() if (part == MODEL or level == "transfer") and reasons else ""
        return Cause(backend, part, kind, level, tensors, failures[0].verdict.ratio, diagnosis)

    def _explained(self, runner: Runner, part: str, failures: list[Finding]) -> str:
        try:
            return self._explain(runner, part, failures)
        except InputError:
            raise
        except Exception:  # as before, when it was compared
            return failures[0].verdict.reason

    def _explain(self, runner: Runner, part: str, failures: list[Finding]) -> str:
        reference, narrow = self.cast.reference, self.cast.yardsticks[0]
        if part in (OPTIMIZER, LOSSES) or part.startswith(f"{LOSS} of "):
            probe = next(item for item in self.experiments if isinstance(item, Steps) and item.part == part)
            found = self._tensors(runner, probe)
            if all(item.name.tensor.endswith(IN_ONE_BLOCK) for item in failures):
                return "right update by update; several in one block of steps end elsewhere"
            if part == OPTIMIZER:
                optimizer: Optimizer = self.subject.optimizer
                return explain_optimizer(probe, optimizer, found, reference, narrow)
            if part == LOSSES:
                return explain_losses(probe, found, reference, narrow)
            loss = self.subject.losses[part.removeprefix(f"{LOSS} of ")].loss
            return explain_loss(probe, loss, found, reference, narrow)
        if all(item.name.tensor.endswith(IN_ONE_BLOCK) for item in failures):
            return "right by itself; a block of training steps drops by other masks, such as those of other steps"
        evidence = self._evidence(runner, part)
        return explain_layer(evidence) if evidence is not None else ""

    def _evidence(self, runner: Runner, part: str) -> Evidence | None:
        """Gather what a backend computed for one layer by itself."""
        layers = next((item for item in self.experiments if isinstance(item, IsolatedLayers)), None)
        if layers is None:
            return None
        whole = replace_levels(layers)
        node = whole.graph.node(part)
        found: dict[tuple[str, str], Array] = {}
        growth: dict[tuple[str, str], float] = {}
        try:
            computed = self._tensors(runner, whole)
        except InputError:
            raise
        except Exception:  # another layer raises it
            whole = whole.alone(node)
            computed = self._tensors(runner, whole)
        for name, array in computed.items():
            if name.part == part:
                found[name.mode, name.tensor] = array
                growth[name.mode, name.tensor] = name.growth
        for steps in (item for item in self.experiments if isinstance(item, Steps) and item.key == "branch steps"):
            for name, array in self._tensors(runner, steps).items():
                local = name.tensor.removeprefix(f"{STATISTICS}{part}.").partition(",")[0]
                canonical = f"{part}.{local}"
                parameter = whole.graph.parameters.get(canonical) if name.part == part else None
                if parameter is not None and not parameter.trainable:
                    found["training", f"{STATISTICS}{local}"] = array
                    growth["training", f"{STATISTICS}{local}"] = name.growth
        modes = {mode for mode, _ in found}
        tasks = {
            mode: Task(
                tuple(given.inputs[input_name(part, position)] for position in range(len(node.inputs))),
                given.upstream.get(part) if runner.trains else None,
                MODES[mode],
            )
            for mode, given in whole.given.items()
            if mode in modes
        }
        parameters = {local: whole.weights[canonical] for local, canonical in node.parameters.items()}
        return Evidence(node, parameters, tasks, found, growth, self.subject.seed, STEP, runner.precision)

    def _tensors(self, runner: Runner, experiment: Experiment) -> dict[TensorName, Array]:
        """Return what a runner computed, computing it anew once."""
        known = getattr(experiment, "key", type(experiment).__name__)
        key = f"{runner.label} {id(experiment) if isinstance(experiment, Steps) else known}"
        if key not in self._found:
            self._found[key] = experiment.tensors(runner)
        return self._found[key]

    def _blamed(self, causes: list[Cause]) -> list[Cause]:
        """Blame NumPy for what all others compute otherwise, and alike."""
        others = [runner for runner in self.cast.candidates if runner.label != "numpy"]
        if len(others) < 2:
            return causes
        kept: list[Cause] = []
        blamed: set[str] = set()
        for cause in causes:
            accused = [item for item in causes if item.part == cause.part]
            if cause.part in blamed:
                continue
            able = [runner for runner in others if runner.trains or cause.level == "forward"]
            alike = len(able) > 1 and {item.backend for item in accused} >= {runner.label for runner in able}
            if alike and self._agree(able, cause.part):
                names = " and ".join(runner.label for runner in able)
                text = f"{names} agree with each other and not with NumPy: the reference is the odd one"
                cause = replace(cause, backend="numpy", diagnosis=text)
                blamed.add(cause.part)
            kept.append(cause)
        return kept

    def _agree(self, runners: list[Runner], part: str) -> bool:
        """Tell whether backends compute the same for a part that all of them compute otherwise than NumPy."""
        for experiment in self.experiments:
            tables = [self._tensors(runner, experiment) for runner in runners]
            right = self._tensors(self.cast.reference, experiment)
            narrow = self._tensors(self.cast.yardsticks[0], experiment)
            for name, first in tables[0].items():
                if name.part != part or not name.isolated:
                    continue
                for other in tables[1:]:
                    if name in other:
                        # Two float32 results, each with an error of its own; what is usual shows in NumPy's.
                        wide = other[name].astype("float64")
                        usual = wide + (narrow[name] - right[name])
                        twice = judge(first, wide, usual, growth=2.0 * name.growth, precision=runners[0].precision)
                        if not twice.passed:
                            return False
        return True


def replace_levels(layers: IsolatedLayers) -> IsolatedLayers:
    """Return the experiment on single layers with outputs and gradients, whichever level was asked for."""
    if layers.levels >= {"forward", "backward"}:
        return layers
    return replace(layers, levels=frozenset({"forward", "backward"}))
