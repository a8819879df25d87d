"""A study done again, and compared with the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Plain = Mapping[str, Any]

SINGLE = "single stream"


def compare(first: Plain, second: Plain) -> tuple[list[str], list[str]]:
    """Compare a study with its repetition (plain values).

    Returns
    -------
    differences
        What must be the same and is not: samples, files, outcomes of the gates, quality, the recommendation where
        nothing else can explain it.
    told
        What may differ: processor, versions, latencies beyond the noise of both.
    """
    hashes, again_hashes = first["splits"]["hashes"], second["splits"]["hashes"]
    differences = [f"the {name} samples are others" for name in hashes if again_hashes.get(name) != hashes[name]]
    told: list[str] = []
    rows = {row["name"]: row for row in second["rows"]}
    for row in first["rows"]:
        again = rows.get(row["name"])
        if again is None:
            differences.append(f"{row['name']} is missing")
            continue
        differences += _row_differences(row, again)
        told += _speed(row, again, first["bands"], second["bands"])
    for label, one, two in (
        ("processor", first["machine"].get("processor"), second["machine"].get("processor")),
        ("CPU flags", first["machine"].get("cpu flags"), second["machine"].get("cpu flags")),
        ("versions", first["versions"], second["versions"]),
    ):
        if one != two:
            told.append(f"{label}: {one} before, {two} now")
    if first["recommended"] != second["recommended"]:
        told.append(f"recommended was {first['recommended'] or 'none'}, and is {second['recommended'] or 'none'} now")
    return differences, told


def _row_differences(row: Plain, again: Plain) -> list[str]:
    name = row["name"]
    if bool(row["failure"]) != bool(again["failure"]):
        before, now = (item["failure"] or "came through the gates" for item in (row, again))
        return [f"{name}: {before} before, {now} now"]
    found = []
    if row["sha256"] != again["sha256"]:
        found.append(f"{name}: the file is another one")
    for part in ("selection", "test"):
        one, two = ((item[part] or {}).get("value", {}).get("value") for item in (row, again))
        if one != two:
            found.append(f"{name}: {part} was {one:.6g} and is {two:.6g}" if one and two else f"{name}: {part} differs")
    return found


def _speed(row: Plain, again: Plain, bands: Mapping[str, float], bands_again: Mapping[str, float]) -> list[str]:
    """Tell ratios whose intervals, widened by both A/A bands, do not meet."""
    said = []
    for scenario, latency in row["latency"].items():
        one, two = latency["ratio"], (again["latency"].get(scenario) or {}).get("ratio")
        if not one or not two:
            continue
        band = bands[scenario] * bands_again[scenario]
        if one["low"] > two["high"] * band or two["low"] > one["high"] * band:
            said.append(f"{row['name']}, {scenario}: {one['value']:.3f} of fp32's time before, {two['value']:.3f} now")
    return said
