"""Writes the report of a run from what its folder holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from unitrain.report.run_page import render_run_page, write_run_page
from unitrain.train.run_folder import RunFolder


def write_report(folder: RunFolder, classes: Sequence[str]) -> None:
    """Write ``report.html``. Raises `InputError` when the ``report`` extra is not installed."""
    environment = folder.read_environment()
    result = folder.read_json(folder.result)
    facts = [
        ("ended", result["message"]),
        ("trained", f"{result['epoch']} epochs, {result['updates']:,} updates, {result['seconds']:.1f} s"),
        (
            "kept",
            f"the weights of epoch {result['best_epoch']}" if result["best_epoch"] else "the last weights",
        ),
        ("backend", f"{environment['backend']} on {environment['device']}"),
        *([("precision", _loss_scale(result))] if result["loss_scale"] is not None else []),
        ("seed", f"{environment['seed']}" + (", deterministic" if environment["deterministic"] else "")),
        ("started", environment["started"]),
        *(("data", line) for line in environment["data"]),
    ]
    page = render_run_page(
        folder.path.name,
        facts,
        folder.history(),
        [
            *((part, result[part]) for part in ("validation", "test") if result[part]),
            *((f"{part}: seasonal naive", values) for part, values in result.get("baseline", {}).items()),
        ],
        classes,
        [
            (folder.recipe.name, folder.recipe.read_text(encoding="utf-8")),
            (folder.model.name, folder.model.read_text(encoding="utf-8")),
            (folder.environment.name, json.dumps(environment, indent=2)),
        ],
    )
    write_run_page(folder.report, page)


def _loss_scale(result: Mapping[str, Any]) -> str:
    """Tell how the loss scale went; ``mixed_float16`` alone has one."""
    return f"mixed_float16, loss scale {result['loss_scale']:,.0f} at the end, {result['skipped']:,} updates skipped"
