"""Asking a process of its own, where nothing is left over from what was done before."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def answer_of(module: str, request: dict[str, Any], seconds: float) -> str | None:
    """Let ``main`` of a module of ours answer a request, JSON on its standard input, in a fresh Python.

    Returns
    -------
    str or None
        The last line that it prints; None where it breaks off, or takes longer than ``seconds``.
    """
    paths = [entry for entry in sys.path if entry]
    code = f"import sys; sys.path[:0] = {paths!r}; from {module} import main; main()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip().rpartition("\n")[2] if done.returncode == 0 else None
