"""Compares whole models: every layer's result and every gradient, with what comes before a layer in each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.foreign import Ran
from unitrain.verify.against.alignment import Alignment
from unitrain.verify.against.judging import Judging, Tensors
from unitrain.verify.against.layouts import Layout, layouts
from unitrain.verify.against.mistakes import ending
from unitrain.verify.against.places import Place
from unitrain.verify.against.sections import Computed
from unitrain.verify.findings import MODEL, Finding, TensorName
from unitrain.verify.growth import parameter_growth
from unitrain.verify.kinks import count_flips
from unitrain.verify.verdict import judge

Array = npt.NDArray[Any]


@dataclass
class WholeModel:
    """Compares the user's model as it is with the spec's."""

    judging: Judging

    def compare(self, mode: str, alignment: Alignment, gradients: bool) -> None:
        """Compare one mode, and its gradients if asked."""
        computed = alignment.expected.whole()
        outputs = self._outputs(mode, alignment)
        places = {name: place for name, place in alignment.places.items() if name not in alignment.inputs}
        feeds = self.judging.fed(alignment, alignment.inputs)
        upstream = None
        if gradients:
            by_output = alignment.expected.output_gradients
            upstream = {
                place.number: place.layout.to_theirs(by_output[name])
                for name, place in outputs.items()
                if name in by_output
            }
        numbers = [place.number for place in (*places.values(), *outputs.values())]
        ran = self.judging.foreign.run(alignment.trace, feeds, numbers, upstream or None)
        growth = alignment.inherited_growth()
        graph = alignment.graph
        tensors: Tensors = {}
        values: dict[str, Array] = {}
        for name, place in places.items():
            values[name] = self.judging.ours(alignment, ran, place, name)
            title = TensorName("forward", name, "output", mode, False, growth[name])
            tensors[title] = [item.values[name] for item in computed], values[name]
        for name, place in outputs.items():
            node = graph.outputs[name]
            title = TensorName("forward", MODEL, f"output {name}", mode, False, growth[node])
            tensors[title] = [item.values[node] for item in computed], self.judging.ours(alignment, ran, place, node)
        self.judging.judge(tensors)
        if upstream:
            found = self.judging.judge(self._whole_gradients(mode, alignment, ran, computed))
            self._excuse(found, alignment, computed[0], values)

    def _whole_gradients(self, mode: str, alignment: Alignment, ran: Ran, computed: Sequence[Computed]) -> Tensors:
        graph = alignment.graph
        largest = max(alignment.inherited_growth().values())
        tensors: Tensors = {}
        for name, place in alignment.inputs.items():
            if graph.inputs[name].dtype == "float" and place.number in ran.by_feed:
                title = TensorName("backward", MODEL, f"gradient by input {name}", mode, False, largest)
                theirs = place.layout.to_ours(ran.by_feed[place.number], graph.inputs[name].shape)
                tensors[title] = [item.by_input[name] for item in computed], theirs
        for node in graph.nodes:
            growth = max(parameter_growth(node, self.judging.subject.batch_size), largest)
            for local, canonical in node.parameters.items():
                gradient = self.judging.by_parameter(ran, canonical)
                if gradient is not None and node.owner == node.name and canonical in computed[0].by_parameter:
                    title = TensorName("backward", node.name, f"gradient by {local}", mode, False, growth)
                    tensors[title] = [item.by_parameter[canonical] for item in computed], gradient
        return tensors

    def _excuse(
        self, found: list[Finding], alignment: Alignment, reference: Computed, values: Mapping[str, Array]
    ) -> None:
        """Excuse gradients of the whole model where rounding moved a value over a kink."""
        if all(item.verdict.passed for item in found):
            return
        inputs = alignment.expected.inputs
        ours = {**inputs, **reference.values}
        theirs = {**ours, **values}
        flips = count_flips(alignment.graph, ours, theirs)
        # More than a few elements on the other side are a difference, and no rounding.
        flips = {name: count for name, count in flips.items() if count <= max(1, ours[name].size // 1000)}
        if not flips:
            return
        layer = next(iter(flips))
        excused = {id(item) for item in found if not item.verdict.passed}
        self.judging.report.findings = [
            Finding(item.backend, item.name, item.verdict, f"flip in {layer}") if id(item) in excused else item
            for item in self.judging.report.findings
        ]

    def _outputs(self, mode: str, alignment: Alignment) -> dict[str, Place]:
        """Return where the model's outputs are; those that go on behind the spec's last layer are faults."""
        graph, theirs = alignment.graph, alignment.trace.outputs
        named = set(graph.outputs) <= set(theirs)
        if not named and len(theirs) < len(graph.outputs):
            text = (
                f"their model has {len(theirs)} outputs, {', '.join(theirs)}; the spec has {', '.join(graph.outputs)}"
            )
            self.judging.fault(MODEL, mode, text, "outputs")
        pairs = (
            {name: theirs[name] for name in graph.outputs}
            if named
            else dict(zip(graph.outputs, theirs.values(), strict=False))
        )
        found: dict[str, Place] = {}
        for name, number in pairs.items():
            node = graph.outputs[name]
            place = alignment.places.get(node)
            if place is not None and place.number == number:
                found[name] = place
                continue
            shape = alignment.trace.shapes[number][1:]
            options = layouts(
                graph.shape(node), shape, [place.layout] if place is not None else [], alignment.search.first
            )
            if not options:
                text = f"output {name} has the shape {list(shape)}; the spec's is {list(graph.shape(node))}"
                self.judging.fault(node, mode, text, f"output {name}")
                continue
            layout = options[0] if place is None else self._ending(mode, alignment, name, place, number, options)
            found[name] = Place(number, layout)
        return found

    def _ending(
        self, mode: str, alignment: Alignment, output: str, start: Place, end: int, options: Sequence[Layout]
    ) -> Layout:
        """Return how an output lies, and say what their model does with the spec's before it gives it away."""
        node = alignment.graph.node(alignment.graph.outputs[output])
        numbers, missing = alignment.trace.section([start.number], [end])
        if missing or node.dtype != "float":
            return options[0]
        right, *yardsticks = [item.values[node.name] for item in alignment.expected.section([node])]
        given = {start.number: start.layout.to_theirs(right.astype(np.float32))}
        value = self.judging.foreign.run(alignment.trace, given, [end]).values[end]
        for layout in options:
            theirs = layout.to_ours(value, node.output_shape)
            if judge(theirs, right, *yardsticks, growth=alignment.search.growth([node])).passed:
                return layout  # it only moves it
        wide = right.astype(np.float32).astype(np.float64)
        for layout in options:
            name = ending(wide, layout.to_ours(value, node.output_shape))
            if name:
                what = "probabilities" if node.layer.type in ("softmax", "sigmoid") else "logits"
                self.judging.fault(
                    node.name, mode, f"their model ends in {name}, the spec gives {what}", f"output {output}"
                )
                return layout
        applied = ", ".join(alignment.trace.operations[number].name for number in numbers[:4])
        text = f"their model goes on behind it with {applied}; the spec ends here"
        self.judging.fault(node.name, mode, text, f"output {output}")
        return options[0]
