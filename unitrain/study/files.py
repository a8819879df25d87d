"""The files of a study's folder: ``study.json``, ``study.csv``, ``study.html``, and each variant's .onnx."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from unitrain.spec.errors import InputError
from unitrain.weights.store import write_text

JSON, CSV, PAGE = "study.json", "study.csv", "study.html"


def make_folder(wanted: Path | None, name: str) -> Path:
    """Make a new folder: the one asked for, or ``studies/<name>-<time>``.

    Raises
    ------
    InputError
        The folder holds something already, or cannot be made.
    """
    if wanted is not None:
        if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
            raise InputError("the folder is there already and is not empty", file=str(wanted), hint="name another one")
        path = wanted
    else:
        first = path = Path("studies") / f"{name}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
        count = 1
        while path.exists():
            count += 1
            path = first.with_name(f"{first.name}-{count}")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder cannot be made: {error.strerror}", file=str(path)) from None
    return path


def write_files(study: Mapping[str, Any], folder: Path) -> None:
    """Write JSON and CSV of a study (plain values)."""
    write_text(folder / JSON, json.dumps(study, indent=1, allow_nan=False) + "\n")
    rows = [_flat(row) for row in study["rows"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / CSV, text.getvalue())


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one row out in columns: ``test.value``, ``latency.offline.p50``."""
    flat: dict[str, Any] = {}

    def put(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                put(f"{prefix}.{key}" if prefix else key, item)
        else:
            flat[prefix] = "; ".join(map(str, value)) if isinstance(value, (list, tuple)) else value

    put("", row)
    return flat


def read_study(folder: Path) -> dict[str, Any]:
    """Read the study of a folder. Raises `InputError` when it is none."""
    path = folder / JSON if folder.is_dir() else folder
    try:
        plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("the folder is not a study: it has no study.json", file=str(folder)) from None
    except (OSError, ValueError) as error:
        raise InputError(f"not readable as JSON: {error}", file=str(path)) from None
    if not isinstance(plain, dict) or not {"rows", "request", "bands"} <= plain.keys():
        raise InputError("this JSON is not a study", file=str(path))
    return plain
