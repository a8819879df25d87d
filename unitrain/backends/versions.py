"""Versions of the packages that took part, and of no others."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from importlib import metadata

# Backend to the packages that it runs on.
_PACKAGES = {"keras": ("keras", "tensorflow"), "torch": ("torch",), "onnx": ("onnx", "onnxruntime")}


def versions(backends: Iterable[str]) -> dict[str, str]:
    """Return package to version, Python's among them; a package that cannot be found is left out."""
    # The package itself is not imported: it gathers what the floors above offer.
    own: str = sys.modules["unitrain"].__version__
    found = {"unitrain": own, "python": platform.python_version()}
    for package in ("numpy", *(package for backend in backends for package in _PACKAGES.get(backend, ()))):
        version = _version(package)
        if version:
            found[package] = version
    return found


def _version(package: str) -> str | None:
    """Ask the installed metadata; the module itself where its distribution has another name, as tensorflow-cpu."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        version: str | None = getattr(sys.modules.get(package), "__version__", None)
        return version
