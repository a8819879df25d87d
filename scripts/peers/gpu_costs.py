"""Time and memory of training on the GPU, beside loops by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from gpu_section import Found, Options

# Steps of an epoch, by batch size: long enough that the epoch's end is nothing beside them.
STEPS = {8: 400, 128: 200, 1024: 30}


def training(options: Options) -> Found:
    """Ours against loops by hand, eager and as a CUDA graph; batch 8 and 128 tell launching from computing.

    Small nets in the form ``recorded``, which the tuner tries on a GPU; the large batch in the standard one.
    """
    import torch
    from comparison import HEADER, compare

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    lines, passed = list(HEADER), True
    own: dict[tuple[str, int], float] = {}
    for name, batch, comparison in comparisons(options):
        for row in compare(comparison, options.rounds):
            lines.append(row.markdown())
            own[name, batch] = row.ours_seconds
            passed &= row.bound is None or row.ratio <= row.bound
            print(lines[-1], flush=True)
    said = []
    for name in dict.fromkeys(name for name, _ in own):
        if (name, 8) in own and (name, 128) in own:
            growth = own[name, 128] / own[name, 8]
            # Sixteen times the work: what takes no longer was never computing.
            kind = "launch-bound" if growth < 1.3 else "compute-bound" if growth > 8 else "between the two"
            said.append(f"{name} takes {growth:.1f} times as long for 16 times the batch: {kind}")
    events = device_milliseconds(options)
    return Found([*lines, "", *(f"- {line}" for line in said), *(f"- {line}" for line in events)], passed)


def comparisons(options: Options) -> Iterator[tuple[str, int, Any]]:
    """Declare the rows: model, batch size, comparison."""
    import torch
    from comparison import Comparison, Peer

    # Eager loop, CUDA graph: bounds of small nets, and of those that are all computing.
    cases = [
        ("tiny", 8, 0.35, 1.05),
        ("mlp", 8, 0.35, 1.05),
        ("lenet", 8, 0.35, 1.05),
        ("cnn", 8, 0.35, 1.05),
        ("mlp", 128, None, 1.05),
        ("lenet", 128, None, 1.05),
        ("cnn", 128, None, 1.05),
        ("cnn", 1024, 1.03, None),
    ]
    for name, batch, eager, graphed in cases:
        build = partial(_theirs, name, batch, options.device)
        peers = {
            "torch loop by hand": Peer(partial(build, "make_epoch"), eager),
            "torch loop by hand, channels last": Peer(partial(build, "make_epoch", channels_last=True)),
            "CUDA graph by hand": Peer(partial(build, "make_graphed_epoch"), graphed),
        }
        if name in ("tiny", "mlp"):
            del peers["torch loop by hand, channels last"]
        form = "recorded" if batch < 1024 else "eager"
        ours = Comparison(
            "cuda",
            f"torch {name} on the GPU, batch {batch}, {form}",
            partial(_ours, name, batch, options.device, form),
            peers,
            STEPS[batch],
            partial(torch.cuda.synchronize, options.device),
        )
        yield name, batch, ours


@cache
def material(name: str, batch: int) -> tuple[Any, Any, Any]:
    """Return graph, images and classes of an epoch."""
    from ours import make_data, make_graph

    graph = make_graph(name)
    return graph, *make_data(graph, STEPS[batch] * batch)


def _ours(name: str, batch: int, device: str, form: str | None = None) -> Callable[[], object]:
    from ours import make_trainer

    return make_trainer(*material(name, batch), "torch", batch, device=device, execution=form).run


def _theirs(name: str, batch: int, device: str, maker: str, **options: Any) -> Callable[[], object]:
    import torch_loops

    _, images, classes = material(name, batch)
    run: Callable[[], object] = getattr(torch_loops, maker)(name, images, classes, batch, device=device, **options)
    return run


def device_milliseconds(options: Options) -> list[str]:
    """Time an epoch of ours by CUDA events too: what the device says, beside the clock of the host."""
    import torch

    lines = []
    for name, batch in (("tiny", 8), ("cnn", 128)):
        run = _ours(name, batch, options.device)
        run()
        with torch.cuda.device(options.device):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            started = time.perf_counter()
            run()
            last.record()
            torch.cuda.synchronize(options.device)
        host = 1e3 * (time.perf_counter() - started)
        lines.append(
            f"{name}, batch {batch}: an epoch of {STEPS[batch]} steps takes {first.elapsed_time(last):.1f} ms by CUDA "
            f"events, {host:.1f} ms by the host's clock"
        )
    return lines


def memory(options: Options) -> Found:
    """Peak memory of an epoch, data included: ours against the loop by hand, by torch's allocator."""
    lines = ["| peak memory of an epoch | batch | ours | theirs | ratio | at most | |", "|---|---|---|---|---|---|---|"]
    passed = True
    for name, batch in (("mlp", 128), ("lenet", 128), ("cnn", 128), ("cnn", 1024)):
        ours = peak_bytes(partial(_ours, name, batch, options.device), options.device)
        theirs = peak_bytes(partial(_theirs, name, batch, options.device, "make_epoch"), options.device)
        ratio = ours / theirs
        passed &= ratio <= 1.1
        met = "met" if ratio <= 1.1 else "**missed**"
        lines.append(
            f"| {name} | {batch} | {ours / 2**20:.1f} MiB | {theirs / 2**20:.1f} MiB | {ratio:.2f} | 1.10 | {met} |"
        )
    return Found(lines, passed)


def peak_bytes(make: Callable[[], Callable[[], object]], device: str) -> int:
    """Return the most bytes that torch gave out while something was built and run twice, above what others hold."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run = make()
    run()
    run()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before
