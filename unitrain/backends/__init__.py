"""The frameworks a graph can be compiled for: one folder each, none of them imported until it is asked for."""

from __future__ import annotations

import importlib
import os

from unitrain.backends.contract import Backend
from unitrain.garbage import everything_stays
from unitrain.spec.errors import InputError, unknown_name

# Backend name to the extra that installs it.
BACKENDS: dict[str, str | None] = {"numpy": None, "keras": "tensorflow", "torch": "torch", "onnx": "onnx"}
# Those whose `Backend.trains` holds, known without importing them.
TRAINING_BACKENDS = ("numpy", "keras", "torch")

# From 1.29 on onnxruntime reports names and hashes of models to its makers as soon as it is imported, unless it is told
# not to. Whoever has set this already is left alone.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load_backend(name: str) -> Backend:
    """Import one backend.

    Raises
    ------
    InputError
        The name is unknown, or the framework is not installed: the message holds the line that installs it.
    """
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    try:
        with everything_stays():
            module = importlib.import_module(f"unitrain.backends.{name}")
    except ModuleNotFoundError as error:
        extra = BACKENDS[name]
        if extra is None or (error.name or "").startswith("unitrain"):
            raise
        raise InputError(
            f"the backend '{name}' needs {error.name}, which is not installed",
            hint=f"pip install 'unitrain[{extra}]'",
        ) from None
    backend: Backend = module.BACKEND
    return backend


def load_training_backend(name: str) -> Backend:
    """Import a backend that trains. Raises `InputError` as `load_backend` does, and when it runs inference only."""
    if name in BACKENDS and name not in TRAINING_BACKENDS:
        raise InputError(
            f"the backend '{name}' runs inference only: it cannot train",
            found=name,
            allowed=", ".join(TRAINING_BACKENDS),
            hint=f"train on one of these; `unitrain evaluate` and `predict` then take --backend {name}",
        )
    return load_backend(name)


def resolve_device(backend: Backend, request: str) -> str:
    """Turn ``--device`` into a device that exists.

    ``auto`` takes the first accelerator, else the CPU; ``cuda`` is ``cuda:0``. There is no silent fall to the CPU.

    Raises
    ------
    InputError
        The device is not there: the message says what was looked for and what was found.
    """
    present = backend.devices()
    if request == "auto":
        return next((device for device in present if device != "cpu"), "cpu")
    wanted = f"{request}:0" if request == "cuda" else request
    if wanted not in present:
        raise InputError(
            f"the backend '{backend.name}' finds no device '{request}'",
            found=", ".join(present),
            allowed=", ".join([*present, "auto"]),
            hint="run `unitrain doctor` to see every backend's devices",
        )
    return wanted
