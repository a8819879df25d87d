"""What limits a call, in a sentence: arithmetic, memory or the cost of starting an operation."""

from __future__ import annotations

from unitrain.bench.results import Ceilings, Work

# A call that takes less than this many times what its operations would take on one element is about starting them.
_LAUNCHES = 3.0
# From this share of a ceiling on the ceiling is what limits.
_NEAR = 0.4
# Where both ceilings together explain less than this share, something else is what takes the time.
_FAR = 0.05


def why(seconds: float, work: Work, backend: str, ceilings: Ceilings) -> str:
    """Say what a call is limited by, from its time, its work and the machine's measured ceilings.

    Notes
    -----
    Williams, Waterman & Patterson 2009, Roofline: an insightful visual performance model. The roof of a call is
    min(peak, intensity * bandwidth), its intensity FLOP over bytes.
    """
    launches = ceilings.empty.get(backend, 0.0) * work.operations
    if launches and seconds < _LAUNCHES * launches:
        part = share(min(launches / seconds, 1.0))
        return f"launch-bound: {part} of it is what {_operations(work)} on one element"
    compute = work.flops / ceilings.flops
    memory = work.bytes / ceilings.bandwidth
    if not compute and not memory:
        return ""
    if max(compute, memory) < _FAR * seconds:
        part = share(max(compute, memory) / seconds)
        return f"far below its roofs: at them arithmetic and memory would take {part} of it"
    if compute >= memory:
        reached = compute / seconds
        said = f"{share(reached)} of the {work.flops / compute / 1e9:.0f} GFLOP/s peak"
        return f"compute-bound: {said}" if reached >= _NEAR else f"below the arithmetic roof: {said}"
    reached = memory / seconds
    said = f"{share(reached)} of the {ceilings.bandwidth / 1e9:.1f} GB/s of main memory"
    if reached > 1.2:
        return f"cache-bound: {reached:.1f} times the {ceilings.bandwidth / 1e9:.1f} GB/s of main memory"
    return f"memory-bound: {said}" if reached >= _NEAR else f"below the memory roof: {said}"


def _operations(work: Work) -> str:
    return "an operation costs" if work.operations == 1 else f"{work.operations} operations cost"


def share(value: float) -> str:
    """Write a share as a percentage of few digits."""
    percent = 100.0 * value
    return f"{percent:.0f} %" if percent >= 1 else f"{percent:.1f} %"
