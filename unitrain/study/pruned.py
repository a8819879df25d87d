"""Variants that rewrite a run's graph: zeros in weights, whole channels gone and trained further."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unitrain.backends.onnx import emit
from unitrain.graph.passes.magnitude import prune_magnitude
from unitrain.graph.passes.prune_channels import prune_channels
from unitrain.spec.errors import InputError
from unitrain.study.subject import Array
from unitrain.study.training import finetune
from unitrain.study.workshop import Built, Workshop

Weights = Mapping[str, Array]


def sparse(workshop: Workshop, sparsity: float = 0.5, pattern: tuple[int, int] | None = None) -> Built:
    """Set the smallest weights to zero, with no training afterwards."""
    trained = workshop.trained
    found = prune_magnitude(trained.loaded.graph, trained.program.weights(), sparsity, pattern=pattern)
    model = emit(found.graph, _float32(found.weights))
    return Built(model, notes=found.notes)


def pruned(workshop: Workshop, ratio: float) -> Built:
    """Take out channels and train further."""
    source = _pruned(workshop, ratio)
    return Built(workshop.floats[source], source=source, notes=tuple(workshop.said.get(source, ())))


def pruned_int8(workshop: Workshop, ratio: float) -> Built:
    """Quantise what `pruned` gives."""
    from unitrain.backends.onnx.posttraining import Static

    return workshop.static(Static(), _pruned(workshop, ratio))


def _pruned(workshop: Workshop, ratio: float) -> str:
    """Prune and train further once; return the name of the float model."""
    name = f"pruned-{round(100 * ratio)}"
    if name not in workshop.floats:
        trained = workshop.trained
        graph, weights = trained.loaded.graph, trained.program.weights()
        found = prune_channels(graph, weights, ratio)
        if all(group.before == group.after for group in found.groups):
            widths = ", ".join(str(group.before) for group in found.groups) or "none"
            raise InputError(
                f"no channel can go: the model's groups of channels are {widths} wide, and those that are left must be "
                "a multiple of 16"
            )
        epochs = workshop.options.finetune_epochs
        _, tuned = finetune(trained.loaded, found.graph, found.weights, epochs, workshop.progress)
        shrunk = 100 * (1 - found.graph.macs / max(graph.macs, 1))
        workshop.said[name] = [
            f"{name}: {shrunk:.0f} % of the multiply-accumulates went with the channels; then trained for {epochs} "
            f"{'epoch' if epochs == 1 else 'epochs'} by the recipe's own schedule",
            *found.notes,
        ]
        workshop.floats[name] = emit(found.graph, _float32(tuned))
    return name


def _float32(weights: Weights) -> dict[str, Array]:
    return {name: np.asarray(array, np.float32) for name, array in weights.items()}
