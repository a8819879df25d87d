"""Int8 that was trained for: numbers are rounded while the run trains further."""

from __future__ import annotations

from unitrain.backends.onnx.integer import emit_int8
from unitrain.spec.errors import InputError
from unitrain.spec.quantization import Quantization
from unitrain.study.training import finetune
from unitrain.study.workshop import Built, Workshop

# Of the recipe's learning rate: weights that fit need to move no further than the rounding asks.
_RATE = 0.1


def qat(workshop: Workshop) -> Built:
    """Train the run further with rounded numbers; a run that has so trained is written as it is."""
    trained = workshop.trained
    loaded, weights = trained.loaded, trained.program.weights()
    if loaded.recipe.quantization is not None:
        return Built(emit_int8(loaded.graph, weights), notes=("qat: with the ranges of the run, which trained for it",))
    epochs = workshop.options.finetune_epochs
    if not epochs:
        raise InputError("it needs training, and finetune_epochs is 0")
    graph, tuned = finetune(
        loaded,
        loaded.graph,
        weights,
        epochs,
        workshop.progress,
        rate=_RATE,
        quantization=Quantization(),
    )
    said = f"qat: trained for {epochs} {'epoch' if epochs == 1 else 'epochs'} at {_RATE:g} of the recipe's rate"
    return Built(emit_int8(graph, tuned), notes=(said,))
