"""Reading a verification's plain values: which tensor of a layer is nearest to what is allowed, and by how much.

What is shown of a tensor is its *share*: error over what is allowed. Two errors are bounded, the root mean square by
``bound`` and the largest by twice that; the share is the larger of the two quotients. At 1 a tensor just passes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Plain = Mapping[str, Any]

_POINT = re.compile(r", (?:step|update) \d+$")


def share(finding: Plain) -> float:
    """Return the share of the allowed error that a tensor takes; infinite where no ratio says why it fails."""
    return max(_quotients(finding))


def ratio_text(finding: Plain) -> str:
    """Write the ratio that is nearer to its bound, and the bound: ``1.26/4``."""
    rms, largest = _quotients(finding)
    if math.isinf(rms):
        return "inf"
    bound = finding["bound"]
    return f"{number(finding['max_ratio'])}/{2 * bound:g}" if largest > rms else f"{number(finding['ratio'])}/{bound:g}"


def number(value: float) -> str:
    """Write a ratio in five characters or fewer."""
    if value == 0:
        return "0"
    if value < 0.01:
        return "<.01"
    if value < 99.95:
        return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
    if value < 9999.5:
        return f"{value:.0f}"
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def failed(finding: Plain) -> bool:
    """Say whether a tensor counts as a failure: it fails, and no flip excuses it."""
    return not finding["passed"] and not finding["excuse"]


def worst(findings: Iterable[Plain]) -> Plain:
    """Return the finding that matters most: failures before excused ones before the rest, then the largest share."""
    return max(findings, key=_weight)


def by_part(report: Plain) -> dict[str, list[Plain]]:
    """Return the findings of each layer in order, then of the optimizer, the losses and the whole model."""
    grouped: dict[str, list[Plain]] = {name: [] for name in report["layers"]}
    for finding in report["findings"]:
        grouped.setdefault(finding["part"], []).append(finding)
    whole = grouped.pop("model", [])
    return {part: found for part, found in {**grouped, "model": whole}.items() if found}


def by_backend(findings: Iterable[Plain]) -> dict[str, list[Plain]]:
    """Group findings by backend."""
    grouped: dict[str, list[Plain]] = {}
    for finding in findings:
        grouped.setdefault(finding["backend"], []).append(finding)
    return grouped


def series(finding: Plain) -> str:
    """Return a tensor's name without the step or update at which it was compared."""
    return _POINT.sub("", str(finding["tensor"]))


def cause_lines(report: Plain, cause: Plain) -> list[str]:
    """Write the failing tensors of a cause, those that miss most first: ``output, inference: 3.1e4/4``."""
    part = [item for item in report["findings"] if item["part"] == cause["part"] and failed(item)]
    own = [item for item in part if item["backend"] == cause["backend"]] or part
    chosen: dict[tuple[str, str], Plain] = {}
    for item in sorted(own, key=_weight, reverse=True):
        chosen.setdefault((series(item), item["mode"]), item)
    return [
        f"{tensor} ({mode}{', by itself' if item['isolated'] else ''}): {item['reason'] or ratio_text(item)}"
        for (tensor, mode), item in chosen.items()
    ]


def excuses(report: Plain) -> dict[str, int]:
    """Count the failures that do not count, by backend and reason: ``torch: flip in relu1``."""
    counted: dict[str, int] = {}
    for item in report["findings"]:
        if not item["passed"] and item["excuse"]:
            reason = f"{item['backend']}: {item['excuse']}"
            counted[reason] = counted.get(reason, 0) + 1
    return counted


def summary_line(report: Plain) -> str:
    """Write how many tensors were compared, and where the worst stands."""
    findings: Sequence[Plain] = report["findings"]
    if not findings:
        return "no tensor was compared"
    failures = sum(failed(item) for item in findings)
    one = worst([item for item in findings if not item["excuse"]] or findings)
    place = one["part"] if one["part"] == "model" else f"{one['part']}, {one['tensor']}"
    ratio = ratio_text(one).replace("/", " of ")
    found = f"{failures:,} failed, " if failures else ""
    return f"{len(findings):,} tensors compared, {found}worst ratio {ratio}: {place} on {one['backend']}"


def _quotients(finding: Plain) -> tuple[float, float]:
    ratio, largest, bound = finding["ratio"], finding["max_ratio"], finding["bound"]
    if ratio is None or largest is None:
        return (0.0, 0.0) if finding["passed"] else (math.inf, math.inf)
    return ratio / bound, largest / (2 * bound)


def _weight(finding: Plain) -> tuple[bool, bool, float]:
    return failed(finding), not finding["passed"], share(finding)
