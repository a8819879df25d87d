"""Which variant to deploy: chosen on the selection samples and on latency, told with the test samples' verdict."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from unitrain.study.quality import Quality
from unitrain.study.results import BASELINE, SINGLE, Row
from unitrain.timing import Interval


def accepted(quality: Quality | None) -> bool:
    """Say whether a loss on the selection samples is accepted.

    It is where it is shown not to be inferior, or, where the samples are too few to show that, where what was seen
    of it lies within the margin.
    """
    if quality is None or quality.gain is None:
        return True
    if quality.verdict == "open":
        return quality.gain.value >= -quality.margin
    return quality.verdict == "not inferior"


def recommend(rows: Sequence[Row], candidates: Collection[str], band: float, *, speed_only: bool) -> tuple[str, str]:
    """Return the name of the variant to deploy, and why, in one sentence.

    The fastest single stream among those that came through the gates, lose no more than is accepted on the selection
    samples, and are faster than the float model beyond the A/A band; of those not told apart the smaller one. Where
    none is faster, the smallest whose time lies within the band. Test samples take no part in the choice: if they
    speak against it, that is said, and the float model is recommended.

    Parameters
    ----------
    candidates
        Names of the variants that may be recommended.
    band
        Of the A/A twin, single stream.
    speed_only
        Inputs were random: the fastest is named, and nothing recommended.
    """
    base = next(row for row in rows if row.name == BASELINE)
    fit = [
        row
        for row in rows
        if row.name in candidates and not row.failure and SINGLE in row.latency and accepted(row.selection)
    ]
    faster = [row for row in fit if row.latency[SINGLE].claim == "faster"]
    if speed_only:
        return "", _fastest(faster)
    if faster:
        best, reason = _of_the_faster(faster)
    else:
        same = [row for row in fit if _ratio(row) <= band and _bytes(row) < 0.9 * _bytes(base)]
        if not same:
            return BASELINE, f"Stay with {BASELINE}: no variant that keeps its quality is faster beyond the A/A band."
        best = min(same, key=_bytes)
        reason = "no variant that keeps its quality is faster beyond the A/A band, and it is the smallest as fast"
    if _bytes(best):
        times = _bytes(base) / _bytes(best)
        reason += f"; its file is {max(times, 1 / times):.1f} times {'smaller' if times >= 1 else 'larger'}"
    verdict = best.test.verdict if best.test else None
    if verdict == "inferior":
        return (
            BASELINE,
            f"Stay with {BASELINE}: {best.name} was chosen on the selection samples, but the test samples show it "
            "inferior by more than the margin.",
        )
    said = {
        None: "",
        "not inferior": "; the test samples show it not inferior at the margin",
        "open": "; the test samples are too few to show that it is not inferior at the margin",
    }[verdict]
    return best.name, f"Deploy {best.name}: {reason}{said}."


def _fastest(faster: Sequence[Row]) -> str:
    if not faster:
        return "No variant is faster than the float model here; inputs were random, so nothing is said of quality."
    best = min(faster, key=_ratio)
    return (
        f"Fastest is {best.name}, at {_ratio(best):.2f} of the float model's time; inputs were random: this is speed "
        "only, and no variant is recommended."
    )


def _of_the_faster(faster: Sequence[Row]) -> tuple[Row, str]:
    """Return the smallest of those that the fastest is not told apart from, and what speaks for it."""
    high = _interval(min(faster, key=_ratio)).high
    near = [row for row in faster if _interval(row).low <= high]
    best = min(near, key=_bytes)
    reason = f"it takes {_ratio(best):.2f} of the float model's time"
    if len(near) > 1:
        reason += f" and is the smallest of {len(near)} that are not told apart in speed"
    return best, reason


def _interval(row: Row) -> Interval:
    return row.latency[SINGLE].ratio or Interval(1.0, 1.0, 1.0)


def _ratio(row: Row) -> float:
    return _interval(row).value


def _bytes(row: Row) -> int:
    return 0 if row.size is None else row.size.file
