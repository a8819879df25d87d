"""Judges tensors of the user's model by the reference's, and keeps what is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays
from unitrain.backends.foreign import Foreign, Ran
from unitrain.spec.layers import Attention
from unitrain.verify.against.alignment import Alignment
from unitrain.verify.against.bindings import Bindings
from unitrain.verify.against.layouts import Conversion
from unitrain.verify.against.places import Place
from unitrain.verify.findings import Finding, Report, TensorName
from unitrain.verify.subject import Subject
from unitrain.verify.verdict import Verdict, judge

Array = npt.NDArray[Any]

# Tensors, each with the reference's and the yardsticks' and theirs.
Tensors = dict[TensorName, tuple[Sequence[Array], Array]]


@dataclass
class Judging:
    """Fills a report.

    Parameters
    ----------
    subject, foreign, bindings, weights
        The spec, the user's model, which parameters belong together, and the user's weights in canonical form.
    report
        Takes up the findings.
    texts
        By part, what is known to be the matter with it.
    """

    subject: Subject
    foreign: Foreign
    bindings: Bindings
    weights: Arrays
    report: Report
    texts: dict[str, str] = field(default_factory=dict)

    def judge(self, tensors: Tensors) -> list[Finding]:
        """Judge tensors, add what is found to the report, and return it."""
        found = []
        for name, ((right, *yardsticks), theirs) in tensors.items():
            verdict = judge(theirs, right, *yardsticks, growth=name.growth)
            found.append(Finding(self.foreign.label, name, verdict))
        self.report.findings += found
        return found

    def fault(self, part: str, mode: str, text: str, what: str = "its place in the model") -> None:
        """Add a finding that is no number; the same in both modes is said once."""
        if self.texts.get(part) == text:
            return
        self.texts[part] = text
        name = TensorName("forward", part, what, mode, True)
        self.report.findings.append(Finding(self.foreign.label, name, Verdict(False, np.inf, np.inf, 1.0, text)))

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.report.notes:
            self.report.notes.append(text)

    def fed(self, alignment: Alignment, places: Mapping[str, Place]) -> dict[int, Array]:
        """Return what the reference gives some layers, as it lies in their model, by number of the tensor."""
        return {place.number: place.layout.to_theirs(alignment.expected.given[name]) for name, place in places.items()}

    def ours(self, alignment: Alignment, ran: Ran, place: Place, name: str) -> Array:
        """Return what their model computed at a place, as the spec's layer gives it."""
        found = place.layout.to_ours(ran.values[place.number], alignment.graph.shape(name))
        return found.astype(np.float32) if found.dtype.kind == "f" else found

    def by_parameter(self, ran: Ran, canonical: str) -> Array | None:
        """Return their gradient by a parameter, in canonical form; None where there is none to compare."""
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

    def change(self, ran: Ran, canonical: str) -> Array | None:
        """Return by how much their model moved a running statistic; None where it has none."""
        binding = self.bindings.get(canonical)
        if binding is None or binding.theirs.name not in ran.statistics:
            return None
        new = binding.conversion.to_ours(ran.statistics[binding.theirs.name])
        return (new.astype(np.float64) - self.weights[canonical]).astype(np.float32)
