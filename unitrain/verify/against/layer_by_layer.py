"""Compares layers by themselves, each given what the reference gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.graph.node import Node
from unitrain.spec.layers import BatchNorm
from unitrain.verify.against.alignment import Alignment
from unitrain.verify.against.judging import Judging, Tensors
from unitrain.verify.against.places import Aligned, Place
from unitrain.verify.diagnosis.evidence import STATISTICS
from unitrain.verify.findings import Finding, TensorName
from unitrain.verify.growth import parameter_growth
from unitrain.verify.verdict import judge

Array = npt.NDArray[Any]


@dataclass
class LayerByLayer:
    """Compares one section after the other.

    Parameters
    ----------
    judging
        Takes up what is found.
    found, growth
        By layer, mode and tensor: what the user's model computed, and the growth that was allowed.
    """

    judging: Judging
    found: dict[str, dict[tuple[str, str], Array]] = field(init=False, default_factory=dict)
    growth: dict[str, dict[tuple[str, str], float]] = field(init=False, default_factory=dict)

    def compare(self, mode: str, alignment: Alignment, section: Aligned) -> None:
        """Compare a section: its result, its gradients, and how it moves running statistics."""
        nodes, node = section.nodes, section.nodes[-1]
        computed = alignment.expected.section(nodes)
        feeds = self.judging.fed(alignment, section.feeds)
        upstream = None
        if self.judging.foreign.trains and node.name in alignment.expected.upstream:
            upstream = {section.place.number: section.place.layout.to_theirs(alignment.expected.upstream[node.name])}
        ran = self.judging.foreign.run(alignment.trace, feeds, [section.place.number], upstream)
        suffix = "" if len(nodes) == 1 else f" of {nodes[0].name} to {node.name}"
        growth = alignment.search.growth(nodes)
        tensors: Tensors = {}

        def add(level: Any, tensor: str, allowed: float, ours: Sequence[Array], theirs: Array) -> None:
            name = TensorName(level, node.name, f"{tensor}{suffix}", mode, True, allowed)
            tensors[name] = ours, theirs

        output = self.judging.ours(alignment, ran, section.place, node.name)
        add("forward", "output", growth, [item.values[node.name] for item in computed], output)
        if upstream is not None:
            for label, source in self._labels(nodes, section.feeds):
                place = section.feeds[source]
                if place.number in ran.by_feed and source in computed[0].by_input:
                    theirs = place.layout.to_ours(ran.by_feed[place.number], alignment.graph.shape(source))
                    add("backward", label, growth, [item.by_input[source] for item in computed], theirs)
        for one in nodes:
            bound = parameter_growth(one, self.judging.subject.batch_size)
            for local, canonical in one.parameters.items():
                gradient = self.judging.by_parameter(ran, canonical)
                if upstream is not None and gradient is not None and canonical in computed[0].by_parameter:
                    ours = [item.by_parameter[canonical] for item in computed]
                    add("backward", f"gradient by {local}", bound, ours, gradient)
                change = self.judging.change(ran, canonical) if canonical in computed[0].changes else None
                if change is not None:
                    ours = [item.changes[canonical] for item in computed]
                    add("step", f"{STATISTICS}{local}", growth, ours, change)
        self._allow_unbiased(node, mode, tensors, self.judging.judge(tensors))
        if len(nodes) == 1:
            for name, (_, theirs) in tensors.items():
                self.found.setdefault(node.name, {})[mode, name.tensor] = theirs
                self.growth.setdefault(node.name, {})[mode, name.tensor] = name.growth

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

    def _allow_unbiased(self, node: Node, mode: str, tensors: Tensors, found: list[Finding]) -> None:
        """Excuse torch's running variance, which is moved by the unbiased variance and cannot be told otherwise."""
        layer = node.layer
        if self.judging.foreign.backend != "torch" or not isinstance(layer, BatchNorm):
            return
        for item in found:
            if item.verdict.passed or not item.name.tensor.startswith(f"{STATISTICS}running_variance"):
                continue
            ours, theirs = tensors[item.name]
            count = self.judging.subject.batch_size * int(np.prod(node.input_shapes[0][:-1]))
            old = self.judging.weights[node.parameters["running_variance"]].astype(np.float64)
            share = 1.0 - layer.momentum
            # With v the batch's variance: change = share * (v - old), torch's = share * (v * N / (N - 1) - old).
            unbiased = [change + (change + share * old) / max(count - 1, 1) for change in ours]
            if judge(theirs, unbiased[0], *unbiased[1:], growth=item.name.growth).passed:
                note = "torch moves running variances by the unbiased variance (N - 1), the spec by the biased one (N)"
                if note not in self.judging.report.notes:
                    self.judging.report.notes.append(note)
                place = next(i for i, other in enumerate(self.judging.report.findings) if other is item)
                excuse = "torch's running variance is unbiased"
                self.judging.report.findings[place] = Finding(item.backend, item.name, item.verdict, excuse)
