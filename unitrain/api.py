"""What Python users call: the same floors that the command line stands on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitrain.backends import load_backend, resolve_device
from unitrain.backends.contract import Arrays, Precision, Settings
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.base import load_spec
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.train.fit import fit, resume
from unitrain.train.recipe import load_recipe
from unitrain.weights.initialize import check_weights, initialize
from unitrain.weights.store import load_weights

__all__ = ["build", "fit", "load_model", "load_recipe", "resolve", "resume"]


def load_model(path: str | Path) -> ModelSpec:
    """Read a model from a YAML file. Raises `InputError` with file, line and field."""
    return load_spec(ModelSpec, path)


def build(
    model: ModelSpec | Graph | str | Path,
    backend: str = "numpy",
    *,
    arguments: Mapping[str, Any] | None = None,
    weights: Arrays | str | Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: Precision = "float32",
    deterministic: bool = False,
) -> Any:
    """Build a framework's own model.

    Parameters
    ----------
    model
        A specification, a YAML file, or a resolved graph.
    backend
        ``numpy`` gives a `NumpyModel`, ``keras`` a functional ``keras.Model``, ``torch`` an ``nn.Module``, ``onnx`` an
        ``onnx.ModelProto`` for inference. Images go in as ``[batch, height, width, channel]`` on all of them.
    arguments
        Values for the model's arguments, such as ``{"classes": 7}``.
    weights
        Canonical arrays or a safetensors file, such as a run's; by default drawn from ``seed``, the same on
        every backend.
    seed
        Keys initial weights and dropout masks.
    device
        ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``auto``.
    precision
        ``float32`` or ``float64``; ``float16`` and ``bfloat16`` where the backend computes in them: torch and keras in
        both, onnx in ``float16``.
    deterministic
        Dropout masks from the project's own generator instead of the framework's.

    Raises
    ------
    InputError
        The model is wrong, the weights do not fit it, or the backend or device is not there.
    """
    if isinstance(model, (str, Path)):
        model = load_model(model)
    graph = model if isinstance(model, Graph) else resolve(model, arguments)
    chosen = load_backend(backend)
    if weights is None:
        canonical: Arrays = initialize(graph, seed)
    elif isinstance(weights, (str, Path)):
        canonical = load_weights(Path(weights), graph)
    else:
        canonical = weights
        problems = check_weights(graph, canonical)
        if problems:
            raise InputError(f"the weights do not fit the model '{graph.name}': {problems[0]}")
    settings = Settings(resolve_device(chosen, device), precision, seed, deterministic)
    return chosen.build(graph, canonical, settings)
