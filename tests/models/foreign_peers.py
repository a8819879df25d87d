"""Models that others wrote, beside ours: what they compute in float64, and the judgement of each backend by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.api import load_model
from unitrain.backends import load_backend
from unitrain.backends.contract import Precision, Settings
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.verify.verdict import judge

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
BACKENDS = ("numpy", "keras", "torch")
TRAINING, INFERENCE = "output in training", "output in inference"


@dataclass(frozen=True)
class Theirs:
    """What another's model computes in float64, in canonical names and layouts.

    Parameters
    ----------
    weights
        All parameters; numbers that float32 holds.
    inputs, upstream
        One batch, and the gradient by the output from which parameters' are derived.
    right
        Outputs in both modes, named as by `computed`, and gradients by all trainable parameters.
    rounded
        The same as their model computes it in float32: what rounding costs there. It matters where the right number
        is 0, as of a bias that softmax takes away again, and all that anybody computes is rounding.
    """

    weights: Arrays
    inputs: Arrays
    upstream: Array
    right: Arrays
    rounded: Arrays


def zoo(name: str, **arguments: Any) -> Graph:
    """Resolve one of the models that come with unitrain."""
    return resolve(load_model(Path(__file__).parents[2] / f"models/{name}.yaml"), arguments)


def computed(graph: Graph, theirs: Theirs, backend: str, precision: Precision) -> Arrays:
    """Return the output in both modes, and the gradients by parameters, of one of our backends."""
    program = load_backend(backend).compile(graph, theirs.weights, Settings(precision=precision))
    (name,) = graph.outputs
    outputs, _, gradients = program.differentiate(theirs.inputs, {name: theirs.upstream}, training=True)
    return {
        TRAINING: outputs[name],
        INFERENCE: program.predict(theirs.inputs)[name],
        **gradients,
    }


def mistakes(
    graph: Graph, theirs: Theirs, *, float32: Sequence[str] | None = None, backends: Sequence[str] = BACKENDS
) -> dict[str, str]:
    """Judge our backends by another's model; return the tensors that fail, and why.

    All are held to it in float64, and in float32 those of ``float32``, or all. Where ReLU decides, two right runs in
    float32 may choose otherwise, from which gradients jump: there outputs alone are meaningful in float32.
    """
    assert set(theirs.right) == {TRAINING, INFERENCE, *graph.trainable}
    yardstick = computed(graph, theirs, "numpy", "float32")
    found = {}
    for backend in backends:
        for precision in ("float64", "float32"):
            ours = yardstick if (backend, precision) == ("numpy", "float32") else None
            ours = ours or computed(graph, theirs, backend, precision)
            names = theirs.right if precision == "float64" or float32 is None else float32
            for name in names:
                verdict = judge(ours[name], theirs.right[name], yardstick[name], theirs.rounded[name])
                if not verdict.passed:
                    found[f"{name} of {backend} in {precision}"] = str(verdict)
    return found


def drawn_images(graph: Graph, samples: int) -> Arrays:
    """Draw a batch of images, ``[sample, height, width, channel]``, that float32 holds."""
    generator = np.random.default_rng(3)
    return {"image": generator.uniform(size=(samples, *graph.inputs["image"].shape)).astype(np.float32)}


def drawn_upstream(*shape: int) -> Array:
    """Draw the gradient by an output."""
    return np.random.default_rng(4).normal(size=shape).astype(np.float32)
