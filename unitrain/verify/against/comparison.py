"""Compares what was aligned: the whole models, every layer by itself, and what explains the differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays
from unitrain.backends.foreign import Foreign, ForeignParameter, Ran
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers import Attention, BatchNorm
from unitrain.verify.against.alignment import Aligned, Alignment, Place
from unitrain.verify.against.layouts import Conversion, Layout, layouts
from unitrain.verify.against.mistakes import ending, explain_copied
from unitrain.verify.against.sections import Computed
from unitrain.verify.against.weights import Bindings
from unitrain.verify.diagnosis import Evidence, explain_layer
from unitrain.verify.diagnosis.evidence import STATISTICS, Task
from unitrain.verify.experiments.layers import STEP
from unitrain.verify.findings import MODEL, Cause, Finding, Report, TensorName
from unitrain.verify.growth import parameter_growth
from unitrain.verify.kinks import count_flips
from unitrain.verify.subject import Subject
from unitrain.verify.verdict import Verdict, judge

Array = npt.NDArray[Any]

# Tensors, each with the reference's and the yardsticks' and theirs.
_Tensors = dict[TensorName, tuple[Sequence[Array], Array]]


@dataclass
class Comparison:
    """Fills a report.

    Parameters
    ----------
    subject, foreign, bindings, weights
        The spec, the user's model, which parameters belong together, and the user's weights in canonical form.
    alignments
        By mode, inference first.
    report
        Takes up the findings.
    tell
        Told what is being done.
    """

    subject: Subject
    foreign: Foreign
    bindings: Bindings
    weights: Arrays
    alignments: Mapping[str, Alignment]
    report: Report
    tell: Callable[[str], None] = lambda message: None
    _found: dict[str, dict[tuple[str, str], Array]] = field(init=False, default_factory=dict)
    _growth: dict[str, dict[tuple[str, str], float]] = field(init=False, default_factory=dict)
    _texts: dict[str, str] = field(init=False, default_factory=dict)

    def compare(self) -> None:
        """Compare whole models, then layer by layer."""
        for mode, alignment in self.alignments.items():
            self.tell(f"the whole model, {mode}")
            self._whole(mode, alignment)
        for mode, alignment in self.alignments.items():
            self.tell(f"layer by layer, {mode}")
            for section in alignment.sections:
                self._section(mode, alignment, section)
            for fault in alignment.faults:
                self._fault(fault.part, mode, fault.text)
            self._lost(mode, alignment)
        self._rates()

    def _judge(self, tensors: _Tensors) -> list[Finding]:
        found = []
        for name, ((right, *yardsticks), theirs) in tensors.items():
            verdict = judge(theirs, right, *yardsticks, growth=name.growth)
            found.append(Finding(self.foreign.label, name, verdict))
        self.report.findings += found
        return found

    def _fault(self, part: str, mode: str, text: str, what: str = "its place in the model") -> None:
        """Add a finding that is no number; the same in both modes is said once."""
        if self._texts.get(part) == text:
            return
        self._texts[part] = text
        name = TensorName("forward", part, what, mode, True)
        self.report.findings.append(Finding(self.foreign.label, name, Verdict(False, np.inf, np.inf, 1.0, text)))

    # --- the whole model -------------------------------------------------------------------------------------------

    def _whole(self, mode: str, alignment: Alignment) -> None:
        computed = alignment.expected.whole()
        outputs = self._outputs(mode, alignment)
        places = {name: place for name, place in alignment.places.items() if name not in alignment.inputs}
        feeds = self._fed(alignment, alignment.inputs)
        last = mode == list(self.alignments)[-1]
        upstream = None
        if self.foreign.trains and last:
            gradients = alignment.expected.output_gradients
            upstream = {
                place.number: place.layout.to_theirs(gradients[name])
                for name, place in outputs.items()
                if name in gradients
            }
        numbers = [place.number for place in (*places.values(), *outputs.values())]
        ran = self.foreign.run(alignment.trace, feeds, numbers, upstream or None)
        growth = alignment.inherited_growth()
        graph = alignment.graph
        tensors: _Tensors = {}
        values: dict[str, Array] = {}
        for name, place in places.items():
            values[name] = self._ours(alignment, ran, place, name)
            title = TensorName("forward", name, "output", mode, False, growth[name])
            tensors[title] = [item.values[name] for item in computed], values[name]
        for name, place in outputs.items():
            node = graph.outputs[name]
            title = TensorName("forward", MODEL, f"output {name}", mode, False, growth[node])
            tensors[title] = [item.values[node] for item in computed], self._ours(alignment, ran, place, node)
        self._judge(tensors)
        if upstream:
            found = self._judge(self._whole_gradients(mode, alignment, ran, computed))
            self._excuse(found, alignment, computed[0], values)

    def _whole_gradients(self, mode: str, alignment: Alignment, ran: Ran, computed: Sequence[Computed]) -> _Tensors:
        graph = alignment.graph
        largest = max(alignment.inherited_growth().values())
        tensors: _Tensors = {}
        for name, place in alignment.inputs.items():
            if graph.inputs[name].dtype == "float" and place.number in ran.by_feed:
                title = TensorName("backward", MODEL, f"gradient by input {name}", mode, False, largest)
                theirs = place.layout.to_ours(ran.by_feed[place.number], graph.inputs[name].shape)
                tensors[title] = [item.by_input[name] for item in computed], theirs
        for node in graph.nodes:
            growth = max(parameter_growth(node, self.subject.batch_size), largest)
            for local, canonical in node.parameters.items():
                gradient = self._by_parameter(ran, canonical)
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
        self.report.findings = [
            Finding(item.backend, item.name, item.verdict, f"flip in {layer}") if id(item) in excused else item
            for item in self.report.findings
        ]

    def _outputs(self, mode: str, alignment: Alignment) -> dict[str, Place]:
        """Return where the model's outputs are; those that go on behind the spec's last layer are faults."""
        graph, theirs = alignment.graph, alignment.trace.outputs
        named = set(graph.outputs) <= set(theirs)
        if not named and len(theirs) < len(graph.outputs):
            text = (
                f"their model has {len(theirs)} outputs, {', '.join(theirs)}; the spec has {', '.join(graph.outputs)}"
            )
            self._fault(MODEL, mode, text, "outputs")
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
            options = layouts(graph.shape(node), shape, [place.layout] if place is not None else [], alignment.first)
            if not options:
                text = f"output {name} has the shape {list(shape)}; the spec's is {list(graph.shape(node))}"
                self._fault(node, mode, text, f"output {name}")
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
        value = self.foreign.run(alignment.trace, given, [end]).values[end]
        for layout in options:
            theirs = layout.to_ours(value, node.output_shape)
            if judge(theirs, right, *yardsticks, growth=alignment.growth([node])).passed:
                return layout  # it only moves it
        wide = right.astype(np.float32).astype(np.float64)
        for layout in options:
            name = ending(wide, layout.to_ours(value, node.output_shape))
            if name:
                what = "probabilities" if node.layer.type in ("softmax", "sigmoid") else "logits"
                self._fault(node.name, mode, f"their model ends in {name}, the spec gives {what}", f"output {output}")
                return layout
        applied = ", ".join(alignment.trace.operations[number].name for number in numbers[:4])
        text = f"their model goes on behind it with {applied}; the spec ends here"
        self._fault(node.name, mode, text, f"output {output}")
        return options[0]

    # --- layer by layer --------------------------------------------------------------------------------------------

    def _section(self, mode: str, alignment: Alignment, section: Aligned) -> None:
        nodes, node = section.nodes, section.nodes[-1]
        computed = alignment.expected.section(nodes)
        feeds = self._fed(alignment, section.feeds)
        upstream = None
        if self.foreign.trains and node.name in alignment.expected.upstream:
            upstream = {section.place.number: section.place.layout.to_theirs(alignment.expected.upstream[node.name])}
        ran = self.foreign.run(alignment.trace, feeds, [section.place.number], upstream)
        suffix = "" if len(nodes) == 1 else f" of {nodes[0].name} to {node.name}"
        growth = alignment.growth(nodes)
        tensors: _Tensors = {}

        def add(level: Any, tensor: str, allowed: float, ours: Sequence[Array], theirs: Array) -> None:
            name = TensorName(level, node.name, f"{tensor}{suffix}", mode, True, allowed)
            tensors[name] = ours, theirs

        output = self._ours(alignment, ran, section.place, node.name)
        add("forward", "output", growth, [item.values[node.name] for item in computed], output)
        if upstream is not None:
            for label, source in self._labels(nodes, section.feeds):
                place = section.feeds[source]
                if place.number in ran.by_feed and source in computed[0].by_input:
                    theirs = place.layout.to_ours(ran.by_feed[place.number], alignment.graph.shape(source))
                    add("backward", label, growth, [item.by_input[source] for item in computed], theirs)
        for one in nodes:
            bound = parameter_growth(one, self.subject.batch_size)
            for local, canonical in one.parameters.items():
                gradient = self._by_parameter(ran, canonical)
                if upstream is not None and gradient is not None and canonical in computed[0].by_parameter:
                    ours = [item.by_parameter[canonical] for item in computed]
                    add("backward", f"gradient by {local}", bound, ours, gradient)
                change = self._change(ran, canonical) if canonical in computed[0].changes else None
                if change is not None:
                    ours = [item.changes[canonical] for item in computed]
                    add("step", f"{STATISTICS}{local}", growth, ours, change)
        self._allow_unbiased(node, mode, tensors, self._judge(tensors))
        if len(nodes) == 1:
            for name, (_, theirs) in tensors.items():
                self._found.setdefault(node.name, {})[mode, name.tensor] = theirs
                self._growth.setdefault(node.name, {})[mode, name.tensor] = name.growth

    def _labels(self, nodes: Sequence[Node], feeds: Mapping[str, Place]) -> list[tuple[str, str]]:
        """Name the gradients by a section's inputs, as the diagnosis knows them."""
        if len(nodes) > 1:
            return [(f"gradient by {source}", source) for source in feeds]
        inputs = nodes[0].inputs
        if len(set(inputs)) < len(inputs):
            return []
        numbered = len(inputs) > 1
        return [
            (f"gradient by input {place}" if numbered else "gradient by input", source)
            for place, source in enumerate(inputs, start=1)
        ]

    def _allow_unbiased(self, node: Node, mode: str, tensors: _Tensors, found: list[Finding]) -> None:
        """Excuse torch's running variance, which is moved by the unbiased variance and cannot be told otherwise."""
        layer = node.layer
        if self.foreign.backend != "torch" or not isinstance(layer, BatchNorm):
            return
        for item in found:
            if item.verdict.passed or not item.name.tensor.startswith(f"{STATISTICS}running_variance"):
                continue
            ours, theirs = tensors[item.name]
            count = self.subject.batch_size * int(np.prod(node.input_shapes[0][:-1]))
            old = self.weights[node.parameters["running_variance"]].astype(np.float64)
            share = 1.0 - layer.momentum
            # With v the batch's variance: change = share * (v - old), torch's = share * (v * N / (N - 1) - old).
            unbiased = [change + (change + share * old) / max(count - 1, 1) for change in ours]
            if judge(theirs, unbiased[0], *unbiased[1:], growth=item.name.growth).passed:
                note = "torch moves running variances by the unbiased variance (N - 1), the spec by the biased one (N)"
                if note not in self.report.notes:
                    self.report.notes.append(note)
                place = next(i for i, other in enumerate(self.report.findings) if other is item)
                excuse = "torch's running variance is unbiased"
                self.report.findings[place] = Finding(item.backend, item.name, item.verdict, excuse)

    def _fed(self, alignment: Alignment, places: Mapping[str, Place]) -> dict[int, Array]:
        return {place.number: place.layout.to_theirs(alignment.expected.given[name]) for name, place in places.items()}

    def _ours(self, alignment: Alignment, ran: Ran, place: Place, name: str) -> Array:
        found = place.layout.to_ours(ran.values[place.number], alignment.graph.shape(name))
        return found.astype(np.float32) if found.dtype.kind == "f" else found

    def _by_parameter(self, ran: Ran, canonical: str) -> Array | None:
        binding = self.bindings.get(canonical)
        # The gradient by the bias of keys is rounding in other models, and in ours zero.
        idle = {
            node.parameters.get("key_bias")
            for node in self.subject.graph.nodes
            if isinstance(node.layer, Attention) and not node.layer.key_bias_learns
        }
        if canonical in idle:
            return None
        if binding is None or binding.theirs.name not in ran.by_parameter:
            return None
        if isinstance(binding.conversion, Conversion) and binding.conversion.repeated:
            return None
        return binding.conversion.to_ours(ran.by_parameter[binding.theirs.name])

    def _change(self, ran: Ran, canonical: str) -> Array | None:
        binding = self.bindings.get(canonical)
        if binding is None or binding.theirs.name not in ran.statistics:
            return None
        new = binding.conversion.to_ours(ran.statistics[binding.theirs.name])
        return (new.astype(np.float64) - self.weights[canonical]).astype(np.float32)

    def _lost(self, mode: str, alignment: Alignment) -> None:
        """Say which layers could not be found by themselves."""
        alone = {section.nodes[0].name for section in alignment.sections if len(section.nodes) == 1}
        for section in alignment.sections:
            if len(section.nodes) > 1:
                names = ", ".join(node.name for node in section.nodes)
                self._note(f"compared together, as they stand otherwise in their model: {names}")
                alone |= {node.name for node in section.nodes}
        faulty = {fault.part for fault in alignment.faults}
        lost = [node.name for node in alignment.graph.nodes if node.name not in alone | faulty]
        if lost:
            self._note(f"not found in their model, {mode}: {', '.join(lost)}")

    def _note(self, text: str) -> None:
        if text not in self.report.notes:
            self.report.notes.append(text)

    def _rates(self) -> None:
        """Compare the rates of dropout, since dropping itself is not compared."""
        rates = {
            node.name: float(getattr(node.layer, node.layer.drop_field))
            for node in self.subject.graph.nodes
            if node.layer.drop_field is not None
        }
        # Attention without dropout has none; a dropout of rate 0 may be there or not.
        of_attention = {node.name for node in self.subject.graph.nodes if isinstance(node.layer, Attention)}
        nodes = [name for name, rate in rates.items() if rate or name not in of_attention]
        drops = next(iter(self.alignments.values())).trace.drops
        if len(nodes) != len(drops):
            if self.foreign.trains:
                self._note(f"the spec has {len(nodes)} dropouts, their model {len(drops)} that could be found")
            return
        for name, rate in zip(nodes, drops, strict=True):
            if abs(rates[name] - rate) > 1e-9:
                self._fault(name, "training", f"matches with rate={rate:g}, spec says {rates[name]:g}", "rate")

    @property
    def _graph(self) -> Graph:
        return next(iter(self.alignments.values())).graph

    # --- parameters ------------------------------------------------------------------------------------------------

    def check_parameters(self, theirs: Sequence[ForeignParameter]) -> None:
        """Add a finding for parameters that their model uses and the spec has not."""
        taken = {name for binding in self.bindings.values() for name in binding.names}
        trace = next(iter(self.alignments.values())).trace
        used = {name for operation in trace.operations for name in operation.parameters}
        left = [item for item in theirs if item.name in used - taken and item.role and item.trainable]
        if left and self.foreign.trains:
            shown = ", ".join(f"{item.name} {list(item.shape)}" for item in left)
            self._fault(MODEL, "inference", f"their model has parameters that the spec has not: {shown}", "parameters")

    def check_weights(self, expected: Arrays) -> None:
        """Compare the user's weights with those that they were to be copied from."""
        for name in self.bindings:
            right, theirs = expected[name].astype(np.float64), self.weights[name]
            owner, _, local = name.rpartition(".")
            title = TensorName("transfer", owner, f"weights {local}", "inference", True)
            verdict = judge(theirs, right)
            self.report.findings.append(Finding(self.foreign.label, title, verdict))
            if not verdict.passed and owner not in self._texts:
                self._texts[owner] = explain_copied(self._graph, owner, local, theirs, expected[name])

    # --- causes ----------------------------------------------------------------------------------------------------

    def causes(self) -> list[Cause]:
        """Return what stands behind the failures, in the order of the graph."""
        failures = self.report.failures
        order = [*self.report.layers, MODEL]
        isolated = [item for item in failures if item.name.isolated]
        chosen = isolated or failures
        parts = sorted({item.name.part for item in chosen}, key=order.index)
        if not isolated:
            parts = parts[:1]
        causes = []
        for part in parts:
            items = sorted((item for item in chosen if item.name.part == part), key=lambda item: -item.verdict.ratio)
            text = self._texts.get(part, "")
            if not text and isolated:
                self.tell(f"diagnosis of {part}")
                text = self._explained(part)
            if not text and not isolated and part != MODEL:
                text = "right by itself: what it is given in the model is wrong"
            tensors = tuple(dict.fromkeys(item.name.tensor for item in items))
            kind = self.report.layers.get(part, "")
            causes.append(
                Cause(self.foreign.label, part, kind, items[0].name.level, tensors, items[0].verdict.ratio, text)
            )
        return causes

    def _explained(self, part: str) -> str:
        """Ask the diagnosis what a layer computes."""
        found = self._found.get(part)
        if not found:
            return ""
        node = self._graph.node(part)
        tasks = {}
        for mode, alignment in self.alignments.items():
            if any(key == mode for key, _ in found):
                given = alignment.expected.given
                upstream = alignment.expected.upstream.get(part) if self.foreign.trains else None
                tasks[mode] = Task(tuple(given[name] for name in node.inputs), upstream, mode == "training")
        parameters = {local: self.weights[canonical] for local, canonical in node.parameters.items()}

        def explained(kept: Mapping[tuple[str, str], Array]) -> str:
            growth = self._growth.get(part, {})
            return explain_layer(Evidence(node, parameters, tasks, kept, growth, self.subject.seed, STEP))

        if self.foreign.backend == "torch":  # its running variance is another one in any case
            found = {key: array for key, array in found.items() if key[1] != f"{STATISTICS}running_variance"}
        failing = {(item.name.mode, item.name.tensor) for item in self.report.failures if item.name.part == part}
        moving = {key: array for key, array in found.items() if key[1].startswith(STATISTICS)}
        if failing & moving.keys() and failing & (found.keys() - moving.keys()):
            # Two mistakes at one layer: what it computes, and how it moves its statistics.
            rest = {key: array for key, array in found.items() if key not in moving}
            return "; ".join(dict.fromkeys(text for text in (explained(rest), explained(moving)) if text))
        return explained(found)
