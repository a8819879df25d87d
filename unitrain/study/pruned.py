"""Variants that prune a run and train it further: zeros in weights, whole channels gone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unitrain.backends.onnx import emit
from unitrain.graph.passes.magnitude import magnitude_masks, prune_magnitude
from unitrain.graph.passes.prune_channels import prune_channels
from unitrain.spec.errors import InputError
from unitrain.spec.pruning import PruningSpec
from unitrain.study.subject import Array
from unitrain.study.training import finetune
from unitrain.study.workshop import Built, Workshop

Weights = Mapping[str, Array]

# Times at which weights become zero, over three quarters of the training.
_REMOVALS = 30


def sparse(workshop: Workshop, sparsity: float | None = None, pattern: tuple[int, int] | None = None) -> Built:
    """Set weights to zero while the run trains further: a share of them little by little, a pattern at once."""
    trained, epochs = workshop.trained, workshop.options.finetune_epochs
    graph, weights = trained.loaded.graph, trained.program.weights()
    _, notes = magnitude_masks(graph, weights, sparsity or 0.0, pattern=pattern)
    if epochs:
        training = trained.loaded.recipe.training
        updates = epochs * workshop.subject.samples.counts["train"] // training.batch_size
        rule = PruningSpec(sparsity=sparsity, pattern=pattern, every=max(1, updates // _REMOVALS))
        _, weights = finetune(
            trained.loaded, graph, weights, epochs, workshop.progress, pruning=rule, teacher=workshop.teacher
        )
    else:
        weights = prune_magnitude(graph, weights, sparsity or 0.0, pattern=pattern).weights
    return Built(emit(graph, _float32(weights)), notes=(f"{_named(sparsity, pattern)}: {_trained(workshop)}", *notes))


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
        tuned = found.weights
        if epochs:
            _, tuned = finetune(trained.loaded, found.graph, tuned, epochs, workshop.progress, teacher=workshop.teacher)
        shrunk = 100 * (1 - found.graph.macs / max(graph.macs, 1))
        workshop.said[name] = [
            f"{name}: {shrunk:.0f} % of the multiply-accumulates went with the channels; {_trained(workshop)}",
            *found.notes,
        ]
        workshop.floats[name] = emit(found.graph, _float32(tuned))
    return name


def _named(sparsity: float | None, pattern: tuple[int, int] | None) -> str:
    return f"sparse-{100 * sparsity:.0f}" if sparsity is not None else "sparse-" + ":".join(map(str, pattern or ()))


def _trained(workshop: Workshop) -> str:
    epochs = workshop.options.finetune_epochs
    if not epochs:
        return "not trained since, as finetune_epochs is 0"
    taught = ", taught by the float model" if workshop.teacher else ""
    return f"trained for {epochs} {'epoch' if epochs == 1 else 'epochs'} by the recipe's own schedule{taught}"


def _float32(weights: Weights) -> dict[str, Array]:
    return {name: np.asarray(array, np.float32) for name, array in weights.items()}
