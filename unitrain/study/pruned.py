"""Variants that rewrite a run's graph: zeros in weights, whole channels gone and trained further."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unitrain.backends.onnx import emit
from unitrain.graph.graph import Graph
from unitrain.graph.passes.magnitude import prune_magnitude
from unitrain.graph.passes.prune_channels import prune_channels
from unitrain.graph.respell import spec_of
from unitrain.spec.errors import InputError
from unitrain.study.subject import Array
from unitrain.study.training import Teller
from unitrain.study.workshop import Built, Workshop
from unitrain.train.fit import fit
from unitrain.train.recipe import LoadedRecipe, check_recipe
from unitrain.weights.store import load_weights, save_tensors

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
            reasons = "; ".join(found.notes[:3]) or "no group of channels is wide enough"
            raise InputError(f"no channel can go in multiples of 16: {reasons}")
        epochs = workshop.options.finetune_epochs
        tuned = finetune(workshop, found.graph, found.weights, epochs)
        shrunk = 100 * (1 - found.graph.macs / max(graph.macs, 1))
        workshop.said[name] = [
            f"{name}: {shrunk:.0f} % of the multiply-accumulates went with the channels; then trained for {epochs} "
            f"{'epoch' if epochs == 1 else 'epochs'} by the recipe's own schedule",
            *found.notes,
        ]
        workshop.floats[name] = emit(found.graph, _float32(tuned))
    return name


def finetune(workshop: Workshop, graph: Graph, weights: Weights, epochs: int) -> dict[str, Array]:
    """Train a rewritten model further by the run's recipe; return its weights.

    Notes
    -----
    The recipe's schedule is gone through again, pressed into ``epochs``, as in Renda et al. 2020, Comparing rewinding
    and fine-tuning in neural network pruning: learning-rate rewinding.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.safetensors"
        save_tensors(start, dict(weights), {"format": "unitrain canonical weights"})
        loaded = _shortened(workshop.trained.loaded, graph, start, epochs)
        done = fit(
            loaded, backend=loaded.recipe.backend, out=Path(folder) / "run", observers=(Teller(workshop.progress),)
        )
        return dict(load_weights(done.folder.weights, graph))


def _shortened(loaded: LoadedRecipe, graph: Graph, start: Path, epochs: int) -> LoadedRecipe:
    recipe = loaded.recipe
    training = recipe.training.model_copy(
        update={"epochs": epochs, "max_steps": None, "max_minutes": None, "early_stopping": None}
    )
    changed = recipe.model_copy(
        update={
            "model": spec_of(graph),
            "initial_weights": str(start),
            "training": training,
            "pruning": None,
            "tracking": (),
        }
    )
    return check_recipe(changed, loaded.folder)


def _float32(weights: Weights) -> dict[str, Array]:
    return {name: np.asarray(array, np.float32) for name, array in weights.items()}
