"""Compares what was aligned: the whole models, every layer by itself, and what explains the differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays
from unitrain.backends.foreign import ForeignParameter
from unitrain.graph.graph import Graph
from unitrain.spec.layers import Attention
from unitrain.verify.against.alignment import Alignment
from unitrain.verify.against.causes import find_causes
from unitrain.verify.against.judging import Judging
from unitrain.verify.against.layer_by_layer import LayerByLayer
from unitrain.verify.against.mistakes import explain_copied
from unitrain.verify.against.whole_model import WholeModel
from unitrain.verify.findings import MODEL, Cause, Finding, TensorName
from unitrain.verify.verdict import judge

Array = npt.NDArray[Any]


@dataclass
class Comparison:
    """Compares models that were aligned, and fills a report.

    Parameters
    ----------
    judging
        Takes up what is found.
    alignments
        By mode, inference first.
    tell
        Told what is being done.
    """

    judging: Judging
    alignments: Mapping[str, Alignment]
    tell: Callable[[str], None] = lambda message: None

    def __post_init__(self) -> None:
        self.layers = LayerByLayer(self.judging)

    def compare(self) -> None:
        """Compare whole models, then layer by layer."""
        whole = WholeModel(self.judging)
        last = list(self.alignments)[-1]
        for mode, alignment in self.alignments.items():
            self.tell(f"the whole model, {mode}")
            whole.compare(mode, alignment, gradients=self.judging.foreign.trains and mode == last)
        for mode, alignment in self.alignments.items():
            self.tell(f"layer by layer, {mode}")
            for section in alignment.sections:
                self.layers.compare(mode, alignment, section)
            for fault in alignment.faults:
                self.judging.fault(fault.part, mode, fault.text)
            self._lost(mode, alignment)
        self._rates()

    def causes(self) -> list[Cause]:
        """Return what stands behind the failures, in the order of the graph."""
        return find_causes(self.judging, self.layers, self.alignments, self.tell)

    def _lost(self, mode: str, alignment: Alignment) -> None:
        """Say which layers could not be found by themselves."""
        alone = {section.nodes[0].name for section in alignment.sections if len(section.nodes) == 1}
        for section in alignment.sections:
            if len(section.nodes) > 1:
                names = ", ".join(node.name for node in section.nodes)
                self.judging.note(f"compared together, as they stand otherwise in their model: {names}")
                alone |= {node.name for node in section.nodes}
        faulty = {fault.part for fault in alignment.faults}
        lost = [node.name for node in alignment.graph.nodes if node.name not in alone | faulty]
        if lost:
            self.judging.note(f"not found in their model, {mode}: {', '.join(lost)}")

    def _rates(self) -> None:
        """Compare the rates of dropout, since dropping itself is not compared."""
        rates = {
            node.name: float(getattr(node.layer, node.layer.drop_field))
            for node in self.judging.subject.graph.nodes
            if node.layer.drop_field is not None
        }
        # Attention without dropout has none; a dropout of rate 0 may be there or not.
        of_attention = {node.name for node in self.judging.subject.graph.nodes if isinstance(node.layer, Attention)}
        nodes = [name for name, rate in rates.items() if rate or name not in of_attention]
        drops = next(iter(self.alignments.values())).trace.drops
        if len(nodes) != len(drops):
            if self.judging.foreign.trains:
                self.judging.note(f"the spec has {len(nodes)} dropouts, their model {len(drops)} that could be found")
            return
        for name, rate in zip(nodes, drops, strict=True):
            if abs(rates[name] - rate) > 1e-9:
                self.judging.fault(name, "training", f"matches with rate={rate:g}, spec says {rates[name]:g}", "rate")

    @property
    def _graph(self) -> Graph:
        return next(iter(self.alignments.values())).graph

    def check_parameters(self, theirs: Sequence[ForeignParameter]) -> None:
        """Add a finding for parameters that their model uses and the spec has not."""
        taken = {name for binding in self.judging.bindings.values() for name in binding.names}
        trace = next(iter(self.alignments.values())).trace
        used = {name for operation in trace.operations for name in operation.parameters}
        left = [item for item in theirs if item.name in used - taken and item.role and item.trainable]
        if left and self.judging.foreign.trains:
            shown = ", ".join(f"{item.name} {list(item.shape)}" for item in left)
            self.judging.fault(
                MODEL, "inference", f"their model has parameters that the spec has not: {shown}", "parameters"
            )

    def check_weights(self, expected: Arrays) -> None:
        """Compare the user's weights with those that they were to be copied from."""
        for name in self.judging.bindings:
            right, theirs = expected[name].astype(np.float64), self.judging.weights[name]
            owner, _, local = name.rpartition(".")
            title = TensorName("transfer", owner, f"weights {local}", "inference", True)
            verdict = judge(theirs, right)
            self.judging.report.findings.append(Finding(self.judging.foreign.label, title, verdict))
            if not verdict.passed and owner not in self.judging.texts:
                self.judging.texts[owner] = explain_copied(self._graph, owner, local, theirs, expected[name])
