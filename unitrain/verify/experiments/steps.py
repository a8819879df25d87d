"""Training steps, each from the reference's own state: changes of weights, optimizer state, statistics, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from unitrain.backends.contract import Batchable, Plan, Program
from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.optimizers import Sgd
from unitrain.train.update import AVERAGE, Update
from unitrain.verify.experiments.layers import STEP, IsolatedLayers
from unitrain.verify.findings import LOSS, MODEL, TensorName
from unitrain.verify.growth import inherited_growth, parameter_growth
from unitrain.verify.runner import Array, Runner
from unitrain.verify.subject import Subject
from unitrain.verify.verdict import sum_growth

UPDATES = 4
AT_START = ", at the start"
IN_ONE_BLOCK = " updates in one block"


@dataclass(frozen=True)
class State:
    """Weights and optimizer state at the start of an update, in float32."""

    weights: Mapping[str, Array]
    slots: Mapping[str, Mapping[str, Array]]


@dataclass
class Steps:
    """Updates one by one: every runner starts each from the state to which the reference had come.

    Parameters
    ----------
    key
        Names the program among a runner's.
    graph, weights, rule, data
        What is trained.
    plans
        The batches of each update.
    isolated
        Whether gradients are exact by construction, so that what fails is the optimizer or loss by itself.
    part
        ``optimizer`` or ``loss of <output>`` to whom all tensors belong; nothing for a whole model.
    measures
        Whether loss and metrics are compared.
    states
        From which each update starts, once `begin` has found them.
    """

    key: str
    graph: Graph
    weights: Mapping[str, Array]
    rule: TrainingRule
    data: Batchable
    plans: Sequence[Plan]
    isolated: bool = False
    part: str = ""
    measures: bool = True
    states: list[State] = field(default_factory=list)

    @property
    def by_layer(self) -> bool:
        """Whether every layer trains by itself."""
        return self.isolated and not self.part

    def begin(self, reference: Runner) -> None:
        """Let the reference train, and keep the state before each update, rounded to float32."""
        program = reference.program(self.key, self.graph, self.weights, self.rule)
        program.load_weights(self.weights)
        placed = program.place(self.data)
        state = _state(program)
        initial = {
            slot: {
                name: self.weights[name] if slot == AVERAGE else np.zeros_like(self.weights[name]) for name in arrays
            }
            for slot, arrays in state.slots.items()
        }
        state = State(state.weights, initial)
        for plan in self.plans:
            self.states.append(state)
            program.load_weights(state.weights)
            program.load_slots(state.slots)
            program.run_steps(placed, plan)
            state = _state(program)

    def tensors(self, runner: Runner) -> dict[TensorName, Array]:
        """Return what each update changes; nothing of a runner that does not train."""
        if not runner.trains:
            return {}
        program = runner.program(self.key, self.graph, self.weights, self.rule)
        placed = program.place(self.data)
        found: dict[TensorName, Array] = {}
        owners = self._owners()
        for slot, arrays in runner.initial_slots[self.key].items():
            for name, array in arrays.items():
                found[self._name(f"{slot} of {name}{AT_START}", owners[name].owner)] = array
        for number, (plan, state) in enumerate(zip(self.plans, self.states, strict=True), start=1):
            start = runner.given(state.weights, f"{self.key} {number}")
            program.load_weights(start)
            program.load_slots({slot: runner.given(arrays, f"{slot} {number}") for slot, arrays in state.slots.items()})
            statistics = program.run_steps(placed, plan)
            updates = int(plan.apply.sum())
            when = f"update {number}" if updates == 1 else f"{updates}{IN_ONE_BLOCK}"
            found |= self._changes(program, start, when, runner)
            if not self.measures:
                continue
            found[self._name(f"loss, {when}", self._loss_part(), self._loss_growth(plan))] = statistics.losses.astype(
                runner.precision
            )
            for label, terms in statistics.metric_terms.items():
                found[self._name(f"sums of {label}, {when}", LOSS)] = terms.sum(axis=0).astype(runner.precision)
        return found

    def _changes(
        self, program: Program, start: Mapping[str, Array], when: str, runner: Runner
    ) -> dict[TensorName, Array]:
        found: dict[TensorName, Array] = {}
        owners = self._owners()
        weights = program.weights()
        if runner.moved:  # for float32 rounds the sum of weight and step
            weights = runner.given(weights, f"{self.key} after {when}")
        slots = program.slots()
        batch = int(self.plans[0].indices.shape[1])
        largest = 1.0 if self.isolated else max(inherited_growth(self.graph, batch, training=True).values())
        for name in self.graph.parameters:
            node = owners[name]
            growth = 1.0 if self.part else max(parameter_growth(node, batch), largest)
            # The difference of two float32 numbers that lie close is exact in float64.
            change = (weights[name].astype(np.float64) - start[name]).astype(runner.precision)
            found[self._name(f"change of {name}, {when}", node.owner, growth)] = change
            for slot, arrays in slots.items():
                if name in arrays:
                    label, array = _linear(slot, arrays[name])
                    found[self._name(f"{label} of {name}, {when}", node.owner, growth)] = array
        return found

    def _owners(self) -> dict[str, Node]:
        return {name: node for node in reversed(self.graph.nodes) for name in node.parameters.values()}

    def _name(self, tensor: str, part: str, growth: float = 1.0) -> TensorName:
        return TensorName("step", self.part or part, tensor, "training", self.isolated, growth)

    def _loss_part(self) -> str:
        return self.part or MODEL

    def _loss_growth(self, plan: Plan) -> float:
        sizes = [int(np.prod(self.graph.shape(node))) for node in self.graph.outputs.values()]
        return sum_growth(int(plan.indices.shape[1]) * max(sizes))


def _linear(slot: str, array: Array) -> tuple[str, Array]:
    """Take the root of what holds squares of gradients, whose errors would count twice as powers of ten."""
    if slot not in ("variance", "sum_of_squares"):
        return slot, array
    with np.errstate(invalid="ignore"):
        return f"root of {slot}", np.sqrt(array)


def _state(program: Program) -> State:
    return State(
        {name: array.astype(np.float32) for name, array in program.weights().items()},
        {
            slot: {name: array.astype(np.float32) for name, array in arrays.items()}
            for slot, arrays in program.slots().items()
        },
    )


def layer_steps(layers: IsolatedLayers) -> Steps:
    """Return one update of every layer by itself, by plain gradient descent: it shows the running statistics."""
    graph, given = layers.graph, layers.given["training"]
    floats = [node.name for node in graph.nodes if node.dtype == "float"]
    update = Update(Sgd(lr=1.0), dict.fromkeys(graph.trainable, False))
    rule = TrainingRule({name: (1.0, GivenGradient()) for name in floats}, (), update)
    data = Batchable(given.inputs, {name: given.upstream[name] for name in floats})
    rows = np.arange(len(data), dtype=np.int32)[None]
    plan = Plan(rows, update.coefficients(np.ones(1), 0), np.ones(1), np.ones(1, dtype=bool), STEP)
    return Steps("branch steps", graph, layers.weights, rule, data, [plan], isolated=True, measures=False)


class GivenGradient:
    """The loss sum(prediction * target): its gradient by the prediction is the target."""

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the sum, and 1."""
        total = xp.sum(prediction * target)
        return total, xp.ones_like(total)

    def gradient(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return the target."""
        return target + xp.zeros_like(prediction)


def model_steps(subject: Subject) -> Steps:
    """Return a few updates of the whole model, on different batches."""
    update = subject.update()
    accumulate = min(subject.accumulate, 4)
    coefficients = update.coefficients(subject.rates(0, UPDATES), 0)
    plans = []
    for number in range(UPDATES):
        first = number * accumulate
        plans.append(
            Plan(
                np.stack([subject.rows(first + micro) for micro in range(accumulate)]),
                np.repeat(coefficients[number : number + 1], accumulate, axis=0),
                np.full(accumulate, 1.0 / accumulate),
                np.arange(accumulate) == accumulate - 1,
                first,
            )
        )
    return Steps("model", subject.graph, subject.weights, subject.rule(), subject.data, plans)
