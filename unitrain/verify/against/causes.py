"""Says what stands behind the differences from the user's model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from unitrain.verify.against.alignment import Alignment
from unitrain.verify.against.judging import Judging
from unitrain.verify.against.layer_by_layer import LayerByLayer
from unitrain.verify.diagnosis import Evidence, explain_layer
from unitrain.verify.diagnosis.evidence import STATISTICS, Task
from unitrain.verify.experiments.layers import STEP
from unitrain.verify.findings import MODEL, Cause

Array = npt.NDArray[Any]


def find_causes(
    judging: Judging, layers: LayerByLayer, alignments: Mapping[str, Alignment], tell: Callable[[str], None]
) -> list[Cause]:
    """Return what stands behind the failures, in the order of the graph.

    Parameters
    ----------
    judging, layers
        What was found, in all and layer by layer.
    alignments
        By mode, inference first.
    tell
        Told what is being done.
    """
    report = judging.report
    order = [*report.layers, MODEL]
    isolated = [item for item in report.failures if item.name.isolated]
    chosen = isolated or report.failures
    parts = sorted({item.name.part for item in chosen}, key=order.index)
    if not isolated:
        parts = parts[:1]
    causes = []
    for part in parts:
        items = sorted((item for item in chosen if item.name.part == part), key=lambda item: -item.verdict.ratio)
        text = judging.texts.get(part, "")
        if not text and isolated:
            tell(f"diagnosis of {part}")
            text = _explained(judging, layers, alignments, part)
        if not text and not isolated and part != MODEL:
            text = "right by itself: what it is given in the model is wrong"
        tensors = tuple(dict.fromkeys(item.name.tensor for item in items))
        kind, level, ratio = report.layers.get(part, ""), items[0].name.level, items[0].verdict.ratio
        causes.append(Cause(judging.foreign.label, part, kind, level, tensors, ratio, text))
    return causes


def _explained(judging: Judging, layers: LayerByLayer, alignments: Mapping[str, Alignment], part: str) -> str:
    """Ask the diagnosis what a layer computes."""
    found = layers.found.get(part)
    if not found:
        return ""
    node = next(iter(alignments.values())).graph.node(part)
    tasks = {}
    for mode, alignment in alignments.items():
        if any(key == mode for key, _ in found):
            given = alignment.expected.given
            upstream = alignment.expected.upstream.get(part) if judging.foreign.trains else None
            tasks[mode] = Task(tuple(given[name] for name in node.inputs), upstream, mode == "training")
    parameters = {local: judging.weights[canonical] for local, canonical in node.parameters.items()}

    def explained(kept: Mapping[tuple[str, str], Array]) -> str:
        growth = layers.growth.get(part, {})
        return explain_layer(Evidence(node, parameters, tasks, kept, growth, judging.subject.seed, STEP))

    if judging.foreign.backend == "torch":  # its running variance is another one in any case
        found = {key: array for key, array in found.items() if key[1] != f"{STATISTICS}running_variance"}
    failing = {(item.name.mode, item.name.tensor) for item in judging.report.failures if item.name.part == part}
    moving = {key: array for key, array in found.items() if key[1].startswith(STATISTICS)}
    if failing & moving.keys() and failing & (found.keys() - moving.keys()):
        # Two mistakes at one layer: what it computes, and how it moves its statistics.
        rest = {key: array for key, array in found.items() if key not in moving}
        return "; ".join(dict.fromkeys(text for text in (explained(rest), explained(moving)) if text))
    return explained(found)
