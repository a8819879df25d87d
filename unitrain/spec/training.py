"""How a training run goes: length, batches, stopping, what is kept."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from unitrain.spec.base import Spec


class EarlyStopping(Spec):
    """Stop when a monitored value has not improved for a number of evaluations.

    Parameters
    ----------
    monitor
        A value of the validation set: ``loss`` or the label of a metric.
    patience
        Evaluations in a row without improvement that are allowed; one more stops the run: with patience 0 the
        first evaluation that is no better than the best stops it.
    minimum_change
        Improvements smaller than this do not count.
    """

    monitor: str = "loss"
    patience: int = 5
    minimum_change: NonNegativeFloat = 0.0


class TrainingSpec(Spec):
    """The course of a run.

    Parameters
    ----------
    epochs
        Passes over the training set, unless something stops the run earlier.
    batch_size
        Samples in a batch. The last batch of an epoch is shorter when the numbers do not divide, and is kept
        unless ``drop_last``.
    evaluation_batch_size
        Samples in a chunk at evaluation and prediction: speed and memory only.
    accumulate
        Batches whose mean gradients are averaged before the weights are updated.
    shuffle
        Draw a new order of the samples for each epoch.
    max_steps
        Stop after this many updates of the weights.
    max_minutes
        Stop after this much time.
    early_stopping
        Stop when validation no longer improves.
    keep_best
        Which validation value decides the weights that the run keeps: ``loss``, a metric's label, or null to
        keep the last ones. Without a validation set the last ones are kept.
    checkpoint_every
        Epochs between checkpoints; the best epoch so far has one too.
    checkpoint_steps
        Also a checkpoint within an epoch, each time that so many batches have been trained on.
    checkpoint_minutes
        Also a checkpoint within an epoch, when the last one is this old.
    keep_last
        How many of the last checkpoints stay, each with that of the best epoch it knows of.
    precision
        ``float32`` or ``float64``: dtype of weights, activations and gradients. ``mixed_bfloat16`` or
        ``mixed_float16``: weights and optimizer state in float32, layers in 16 bits; in float16 with a loss scale that
        adapts itself. Not on NumPy.
    tf32
        Let CUDA devices round what enters products of float32 to TensorFloat-32. Without effect elsewhere.
    """

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    evaluation_batch_size: PositiveInt = 256
    accumulate: PositiveInt = 1
    shuffle: bool = True
    drop_last: bool = False
    max_steps: PositiveInt | None = None
    max_minutes: PositiveFloat | None = None
    early_stopping: EarlyStopping | None = None
    keep_best: str | None = "loss"
    checkpoint_every: PositiveInt = 1
    checkpoint_steps: PositiveInt | None = None
    checkpoint_minutes: PositiveFloat | None = 10.0
    keep_last: PositiveInt = 2
    precision: Literal["float32", "float64", "mixed_bfloat16", "mixed_float16"] = "float32"
    tf32: bool = False
