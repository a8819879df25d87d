"""Forward and backward: every layer by itself, and the model as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field

import numpy as np

from unitrain.backends.contract import Arrays, Precision
from unitrain.backends.numpy.execution import Mode
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.verify.findings import MODEL, Level, TensorName
from unitrain.verify.growth import inherited_growth, layer_growth, parameter_growth
from unitrain.verify.isolation import Given, branch_weights, branches, input_name, reference_given
from unitrain.verify.kinks import CHOOSING, KINKS
from unitrain.verify.runner import Array, Runner
from unitrain.verify.subject import Subject, graph_dtype

MODES = {"training": True, "inference": False}
# Number of the step that keys the dropout masks.
STEP = 3


@dataclass
class IsolatedLayers:
    """Every layer, given the reference's own inputs and upstream gradients.

    Parameters
    ----------
    subject
        What is verified.
    output_gradients
        By output name, for the batch.
    levels
        ``forward`` for the outputs, ``backward`` for the gradients.
    precision
        What the backends compute in.
    """

    subject: Subject
    output_gradients: Arrays
    levels: frozenset[Level]
    precision: Precision = "float32"
    given: dict[str, Given] = field(init=False)
    graph: Graph = field(init=False)
    key: str = field(init=False, default="branches")

    def __post_init__(self) -> None:
        subject = self.subject
        self.graph = branches(subject.graph)
        self.weights = branch_weights(subject.graph, subject.weights)
        inputs = subject.batch(0).inputs
        self.given = {
            mode: reference_given(
                subject.graph,
                subject.weights,
                inputs,
                self.output_gradients,
                Mode(training, subject.seed, STEP),
                self.precision,
            )
            for mode, training in MODES.items()
        }

    def alone(self, node: Node) -> IsolatedLayers:
        """Return the experiment on one of the layers, a ``node`` of the graph of branches."""
        single = copy(self)
        single.key = f"branch {node.name}"
        parameters = set(node.parameters.values())
        single.graph = Graph(
            self.graph.name,
            {name: self.graph.inputs[name] for name in node.inputs},
            (node,),
            {node.name: node.name},
            {name: parameter for name, parameter in self.graph.parameters.items() if name in parameters},
        )
        single.weights = {name: self.weights[name] for name in single.graph.parameters}
        single.given = {
            mode: Given(
                {name: given.inputs[name] for name in node.inputs},
                {name: gradient for name, gradient in given.upstream.items() if name == node.name},
            )
            for mode, given in self.given.items()
        }
        return single

    def tensors(self, runner: Runner) -> dict[TensorName, Array]:
        """Return outputs, gradients by inputs and gradients by parameters of every layer, in both modes."""
        program = runner.program(self.key, self.graph, self.weights)
        found: dict[TensorName, Array] = {}
        for mode, training in MODES.items():
            given = self.given[mode]
            if not runner.trains:
                if not training:
                    found |= self._outputs(mode, program.predict(given.inputs))
                continue
            # Inputs with kinks stay where they are: moved apart, equal numbers would no longer be equal.
            smooth = {name: given.inputs[name] for name in self._smooth}
            inputs = {**given.inputs, **runner.given(smooth, f"inputs {mode}")}
            upstream = runner.given(given.upstream, f"upstream {mode}")
            outputs, *gradients = program.differentiate(inputs, upstream, training=training, step=STEP)
            found |= self._outputs(mode, outputs)
            found |= self._gradients(mode, *gradients)
        return found

    def outputs(self, runner: Runner) -> dict[TensorName, Array]:
        """Return the outputs of every layer, in both modes, of a runner that may not be able to go back from them."""
        program = runner.program(self.key, self.graph, self.weights)
        found: dict[TensorName, Array] = {}
        for mode, training in MODES.items():
            if runner.trains or not training:
                found |= self._outputs(mode, program.activations(self.given[mode].inputs, training=training, step=STEP))
        return found

    @property
    def _smooth(self) -> list[str]:
        """Names of the inputs of layers without kinks."""
        smooth = [node for node in self.graph.nodes if node.layer.type not in (*KINKS, *CHOOSING)]
        return [name for node in smooth for name in node.inputs]

    def _outputs(self, mode: str, outputs: Arrays) -> dict[TensorName, Array]:
        if "forward" not in self.levels:
            return {}
        return {
            TensorName("forward", node.name, "output", mode, True, self._growth(node, mode)): outputs[node.name]
            for node in self.graph.nodes
        }

    def _growth(self, node: Node, mode: str) -> float:
        return layer_growth(node, self.subject.batch_size, MODES[mode], self.precision)

    def _gradients(self, mode: str, by_input: Arrays, by_parameter: Arrays) -> dict[TensorName, Array]:
        if "backward" not in self.levels:
            return {}
        found: dict[TensorName, Array] = {}
        for node in self.graph.nodes:
            for position in range(len(node.inputs)):
                key = input_name(node.name, position)
                if key in by_input:
                    label = "gradient by input" if len(node.inputs) == 1 else f"gradient by input {position + 1}"
                    name = TensorName("backward", node.name, label, mode, True, self._growth(node, mode))
                    found[name] = by_input[key]
            growth = parameter_growth(node, self.subject.batch_size, self.precision)
            for local, canonical in node.parameters.items():
                if canonical in by_parameter:
                    name = TensorName("backward", node.name, f"gradient by {local}", mode, True, growth)
                    found[name] = by_parameter[canonical]
        return found


@dataclass
class WholeModel:
    """The model as a whole: results of all layers, and gradients by inputs and parameters.

    Parameters
    ----------
    subject, output_gradients, levels, precision
        As for `IsolatedLayers`.
    batch
        Number of the batch.
    """

    subject: Subject
    output_gradients: Arrays
    levels: frozenset[Level]
    batch: int = 0
    precision: Precision = "float32"

    def tensors(self, runner: Runner) -> dict[TensorName, Array]:
        """Return results and gradients, in both modes; gradients in training mode only."""
        subject = self.subject
        program = runner.program("model", subject.graph, subject.weights, subject.rule() if runner.trains else None)
        inputs = subject.batch(self.batch).inputs
        found: dict[TensorName, Array] = {}
        if "forward" in self.levels:
            for mode, training in MODES.items():
                if runner.trains or not training:
                    growth = inherited_growth(subject.graph, subject.batch_size, training, self.precision)
                    values = program.activations(inputs, training=training, step=STEP)
                    found |= {
                        TensorName("forward", name, "output", mode, False, growth[name]): array
                        for name, array in values.items()
                    }
        if "backward" in self.levels and runner.trains:
            found |= self._gradients(program.differentiate(inputs, self._seeds(runner), training=True, step=STEP))
        return found

    def _seeds(self, runner: Runner) -> dict[str, Array]:
        return runner.given(self.output_gradients, "output gradients")

    def _gradients(self, differentiated: tuple[Mapping[str, Array], ...]) -> dict[TensorName, Array]:
        _, by_input, by_parameter = differentiated
        graph, batch = self.subject.graph, self.subject.batch_size
        largest = max(inherited_growth(graph, batch, True, self.precision).values())
        found = {
            TensorName("backward", MODEL, f"gradient by input {name}", "training", False, largest): array
            for name, array in by_input.items()
        }
        for node in graph.nodes:
            growth = max(parameter_growth(node, batch, self.precision), largest)
            for local, canonical in node.parameters.items():
                if canonical in by_parameter and node.owner == node.name:
                    name = TensorName("backward", node.name, f"gradient by {local}", "training", False, growth)
                    found[name] = by_parameter[canonical]
        return found


def output_gradients(subject: Subject, reference: Runner) -> dict[str, Array]:
    """Return the gradient of the subject's loss by each output, float32, as the reference has it on the first batch.

    Outputs that no loss trains are given drawn gradients.
    """
    from unitrain.backends.numpy.namespace import NumpyNamespace
    from unitrain.weights.random import stream

    program = reference.program("model", subject.graph, subject.weights, subject.rule())
    batch = subject.batch(0)
    values = program.activations(batch.inputs, training=True, step=STEP)
    rule = subject.rule()
    found: dict[str, Array] = {}
    for output, node in subject.graph.outputs.items():
        if graph_dtype(subject.graph, node) != "float":
            continue
        prediction = values[node]
        gradient = np.zeros(prediction.shape)
        if output in rule.losses:
            factor, loss = rule.losses[output]
            target, weight = batch.targets[output], batch.weight
            _, denominator = loss.terms(NumpyNamespace(), prediction, target, weight)
            gradient = loss.gradient(NumpyNamespace(), prediction, target, weight)
            gradient = gradient * (factor / denominator) if denominator else np.zeros(prediction.shape)
        if not np.any(gradient.astype(np.float32)):
            gradient = stream(subject.seed, "verify", "output gradient", output).normal(size=prediction.shape)
        found[output] = gradient.astype(np.float32)
    return found
