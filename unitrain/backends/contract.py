"""What a backend is to the rest of unitrain: the contract that every column of the house fills.

A backend compiles a `Graph` into a `Program`. The trainer hands the program a `Plan` of many steps over data
that already lies on its device and reads back `Statistics`; it never sees a framework's tensor.
Everything that crosses this border is NumPy, in canonical names and layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph

Arrays = Mapping[str, npt.NDArray[Any]]

Precision = Literal["float32", "float64", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16"]


@dataclass(frozen=True)
class Batchable:
    """A data set in memory: every array has the samples on its first axis.

    ``inputs`` and ``targets`` are keyed by the graph's input and output names; ``weight`` is one number a
    sample, or None. Integer arrays are int32 (or uint8 for raw images, cast to the working precision
    by the program when it gathers a batch); others are float32 or float64. ``units`` are those of many series' targets,
    for metrics: float64 ``[n, 3, column]`` by output, as `unitrain.data.dataset.Split` has them.
    """

    inputs: Arrays
    targets: Arrays
    weight: npt.NDArray[Any] | None = None
    units: Arrays = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Plan:
    """A block of training steps, decided beforehand by the trainer.

    Parameters
    ----------
    indices
        Samples of each step, int32 ``[steps, batch]``. A batch is never padded: a short last batch is a
        block of its own, so that batch statistics stay exact.
    coefficients
        The optimizer's scalars for each step, float64 ``[steps, coefficients]``.
    scale
        Factor of each step's gradient, float64 ``[steps]``: 1 / (steps accumulated).
    apply
        Whether the accumulated gradient is applied after the step, bool ``[steps]``.
    first_step
        Number of the first step since the start of training: keys the dropout masks.
    loss_scale
        What losses are multiplied by for the backward pass, and gradients divided by after it, so that they do not
        vanish in float16 (Micikevicius et al. 2018, section 3.2). An update whose gradient is not finite is then not
        applied, and ends the block. None for no such scale.
    """

    indices: npt.NDArray[np.int32]
    coefficients: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    apply: npt.NDArray[np.bool_]
    first_step: int
    loss_scale: float | None = None

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Statistics:
    """What a block gives back, read from the device once.

    Parameters
    ----------
    losses
        Total loss of each step done, float64 ``[completed]``. When a step's loss is not finite it is the last
        entry, that step was not applied, and the block ended there.
    metric_terms
        ``{label: terms}``: numerator and denominator of each step whose loss is finite, float64 ``[steps, 2]``. They
        are not summed yet, so that a sum over an epoch does not depend on how its steps are cut into blocks.
    skipped
        Whether the block ended with its last step done because the update there was not applied: under
        `Plan.loss_scale` its gradient was not finite. Weights and slots have not moved, gradients accumulated for it
        are dropped, and the running statistics of batches whose own gradient was not finite have not moved either.
    """

    losses: npt.NDArray[np.float64]
    metric_terms: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    skipped: bool = False


@dataclass(frozen=True)
class Settings:
    """How a program is to run.

    Parameters
    ----------
    device
        A device name that `Backend.resolve_device` returned.
    precision
        Working dtype of weights, activations and gradients, one of the backend's `Backend.precisions`. Of a program
        in ``float16`` or ``bfloat16`` all arrays that come out are float32 and hold numbers of that format. Of a
        ``mixed_`` one weights are float32, and layers compute in 16 bits: see `unitrain.backends.precision`.
    seed
        Keys the dropout masks in deterministic mode, seeds the framework's own generator otherwise.
    deterministic
        Dropout masks from the project's generator, the same on every backend.
    tf32
        Let a CUDA device round what enters products of float32 to 10 bits of fraction, which is faster. Nothing else
        knows TensorFloat-32.
    execution
        Name of the form that trains, one of `Backend.candidates`; None for the standard one.
    """

    device: str = "cpu"
    precision: Precision = "float32"
    seed: int = 0
    deterministic: bool = True
    tf32: bool = False
    execution: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A form in which a backend can train a program: the same numbers up to rounding, another speed.

    Parameters
    ----------
    name
        As recipes name it.
    what
        What is done, in a few words.
    first_seconds
        What it costs before its first step beyond the standard form, about: compiling.
    """

    name: str
    what: str
    first_seconds: float = 0.0


class Program(Protocol):
    """A graph compiled for one device; holds weights and optimizer slots there."""

    graph: Graph

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Copy out all parameters, running statistics included, canonical names and layouts."""
        ...

    def load_weights(self, weights: Arrays) -> None:
        """Take over all parameters (canonical). The slots keep their values."""
        ...

    def slots(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Copy out the optimizer state: ``{slot: {parameter: array}}``, canonical layouts."""
        ...

    def load_slots(self, slots: Mapping[str, Arrays]) -> None:
        """Take over the optimizer state (canonical)."""
        ...

    def place(self, data: Batchable) -> Any:
        """Copy a data set to the device once; the result is for `run_steps`."""
        ...

    def run_steps(self, placed: Any, plan: Plan) -> Statistics:
        """Train for the planned steps. One host synchronisation, at the end.

        A gradient that is accumulated and not yet applied when the block ends is kept for the next block.
        """
        ...

    def predict(self, inputs: Arrays, batch_size: int = 256) -> dict[str, npt.NDArray[Any]]:
        """Run inference in chunks of ``batch_size``; outputs keyed by graph output name."""
        ...

    def activations(self, inputs: Arrays, *, training: bool = False, step: int = 0) -> dict[str, npt.NDArray[Any]]:
        """Return the output of every node for one batch, in the spec's layout. Changes no state."""
        ...

    def differentiate(
        self, inputs: Arrays, output_gradients: Arrays, *, training: bool = True, step: int = 0
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
        """Return outputs, gradients by float inputs, and gradients by trainable parameters. Changes no state."""
        ...


class Backend(Protocol):
    """One framework. Each ``backends/<name>/__init__.py`` offers an object ``BACKEND`` that has this shape."""

    name: str
    trains: bool
    """Whether its programs train and differentiate; otherwise they run inference alone, and take no rule."""
    precisions: tuple[Precision, ...]
    """In what it computes; `InputError` is raised for the others."""

    def devices(self) -> list[str]:
        """List the devices this framework can use here, such as ``["cpu", "cuda:0"]``."""
        ...

    def layer_types(self) -> frozenset[str]:
        """List the layer types that this backend implements (the registry's filled cells)."""
        ...

    def candidates(self, graph: Graph, settings: Settings) -> tuple[Candidate, ...]:
        """List the forms in which programs of this graph can train here, the standard one first."""
        ...

    def build(self, graph: Graph, weights: Arrays, settings: Settings) -> Any:
        """Build the framework's own model object (``keras.Model``, ``torch.nn.Module``, `NumpyModel`)."""
        ...

    def compile(self, graph: Graph, weights: Arrays, settings: Settings, rule: TrainingRule | None = None) -> Program:
        """Compile a program; without a ``rule`` it serves inference and differentiation only."""
        ...
