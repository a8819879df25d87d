"""Checks and times unitrain on an NVIDIA GPU; `scripts/bench-gpu` makes the environment and runs this.

scripts/bench-gpu [--rounds 9] [--only SECTION,...] [--device cuda:0] [--write] [--list]

The sections are independent of one another: what breaks off in one is written down, and the others are done.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "runs" / "bench-gpu"
MODELS = ("models/mlp.yaml", "models/lenet5.yaml", "models/cnn.yaml", "models/resnet20.yaml")
# Steps of an epoch, by batch size: long enough that the epoch's end is nothing beside them.
STEPS = {8: 400, 128: 200, 1024: 30}


@dataclass(frozen=True)
class Found:
    """What a section found: lines of Markdown, and whether all that has to hold does."""

    lines: list[str]
    passed: bool = True


@dataclass(frozen=True)
class Options:
    """What the command line said."""

    device: str = "cuda:0"
    rounds: int = 9


def verify(options: Options) -> Found:
    """`unitrain verify` of models on the GPU: torch in float32 and bfloat16, Keras where it is installed."""
    keras = os.environ.get("UNITRAIN_GPU_KERAS_PYTHON")
    tried = [
        ("torch, float32", sys.executable, ["--backends", "numpy,torch"]),
        ("torch, bfloat16", sys.executable, ["--backends", "torch", "--dtype", "bfloat16", "--level", "forward"]),
        *([("keras, float32", keras, ["--backends", "numpy,keras"])] if keras else []),
    ]
    lines = ["| `unitrain verify` on the GPU | models | | seconds |", "|---|---|---|---|"]
    passed = True
    for name, python, arguments in tried:
        command = ["verify", *MODELS, *arguments, "--device", options.device, "--steps", "50", "--quiet"]
        code, seconds = _unitrain(python, command, f"verify-{name.replace(', ', '-')}.log")
        passed &= code == 0
        models = ", ".join(Path(model).stem for model in MODELS)
        lines.append(
            f"| {name} | {models} | {'PASS' if code == 0 else f'**FAIL**, exit code {code}'} | {seconds:.0f} |"
        )
    return Found(lines, passed)


def fit(options: Options) -> Found:
    """`unitrain fit` of a recipe on the GPU."""
    out = FOLDER / f"digits-{int(time.time())}"
    command = ["fit", "recipes/digits-cnn.yaml", "--backend", "torch", "--device", options.device, "--out", str(out)]
    code, seconds = _unitrain(sys.executable, command, "fit.log")
    said = "ended well" if code == 0 else f"**broke off**, exit code {code}"
    return Found(
        [f"`unitrain fit recipes/digits-cnn.yaml --device {options.device}` {said} ({seconds:.0f} s)."], code == 0
    )


def bench(options: Options) -> Found:
    """`unitrain bench all` on CPU and GPU; the page and the JSON lie in the folder of this run."""
    page, plain = FOLDER / "bench.html", FOLDER / "bench.json"
    command = ["bench", "all", "--devices", f"cpu,{options.device}", "--html", str(page), "--json", str(plain)]
    code, seconds = _unitrain(sys.executable, command, "bench.log")
    said = "all results right" if code == 0 else f"**exit code {code}**"
    return Found([f"`unitrain bench all --devices cpu,{options.device}`: {said} ({seconds:.0f} s)."], code == 0)


def repeatability(options: Options) -> Found:
    """Two deterministic runs from the same weights end with the same bits."""
    same = {name: same_bits(name, options.device) for name in ("mlp", "lenet", "cnn")}
    lines = ["| trained twice, deterministic | weights |", "|---|---|"]
    lines += [f"| {name} | {'the same bits' if equal else '**differ**'} |" for name, equal in same.items()]
    return Found(lines, all(same.values()))


def same_bits(name: str, device: str, steps: int = 20, batch: int = 32) -> bool:
    """Train a model twice on ``device`` and compare all weights and optimizer slots bit by bit."""
    from ours import make_data, make_graph, make_trainer

    graph = make_graph(name)
    data = make_data(graph, steps * batch)
    ends = []
    for _ in range(2):
        trainer = make_trainer(graph, *data, "torch", batch, device=device, deterministic=True)
        trainer.run()
        slots = trainer.program.slots()
        ends.append({**trainer.program.weights(), **{f"{s} {n}": slots[s][n] for s in slots for n in slots[s]}})
    return all(ends[0][key].tobytes() == ends[1][key].tobytes() for key in ends[0])


def synchronisation(options: Options) -> Found:
    """No step of a block waits for the device: torch raises an error where one does."""
    lines = ["| steps of a block | |", "|---|---|"]
    passed = True
    for name in ("tiny", "mlp", "lenet", "cnn"):
        try:
            steps_under(name, options.device, no_waiting)
            said = "do not wait"
        except RuntimeError as error:
            said, passed = f"**wait**: {' '.join(str(error).split())[:120]}", False
        lines.append(f"| {name} | {said} |")
    return Found(lines, passed)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Let torch raise `RuntimeError` at whatever waits for the GPU."""
    import torch

    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def steps_under(name: str, device: str, guard: Callable[[], AbstractContextManager[None]], steps: int = 8) -> None:
    """Train for an epoch with ``guard`` around the steps of each block, from the first to the last of them.

    The way of the indices to the device and the reading of the statistics lie outside: once a block they may wait.
    """
    from ours import make_data, make_graph, make_trainer

    graph = make_graph(name)
    trainer = make_trainer(graph, *make_data(graph, steps * 16), "torch", 16, device=device)
    trainer.run()  # the first steps choose algorithms and get memory
    program: Any = trainer.program
    step, read = program._step, program._statistics
    with ExitStack() as around:

        def guarded_step(*arguments: Any) -> Any:
            if not inside:
                inside.append(around.enter_context(guard()))
            return step(*arguments)

        def unguarded_read(*arguments: Any) -> Any:
            around.close()
            inside.clear()
            return read(*arguments)

        inside: list[None] = []
        program._step, program._statistics = guarded_step, unguarded_read
        trainer.run()


def training(options: Options) -> Found:
    """Ours against loops by hand, eager and as a CUDA graph; batch 8 and 128 tell launching from computing."""
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
        ours = Comparison(
            "cuda",
            f"torch {name} on the GPU, batch {batch}",
            partial(_ours, name, batch, options.device),
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


def _ours(name: str, batch: int, device: str) -> Callable[[], object]:
    from ours import make_trainer

    return make_trainer(*material(name, batch), "torch", batch, device=device).run


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


SECTIONS: dict[str, Callable[[Options], Found]] = {
    "repeatability": repeatability,
    "synchronisation": synchronisation,
    "training": training,
    "memory": memory,
    "fit": fit,
    "verify": verify,
    "bench": bench,
}


def _unitrain(python: str, arguments: Sequence[str], log: str) -> tuple[int, float]:
    """Run a command of unitrain's in a process of its own; what it prints goes into a file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"unitrain {' '.join(arguments)}", flush=True)
    started = time.perf_counter()
    with (FOLDER / log).open("w", encoding="utf-8") as output:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [str(python), "-m", "unitrain", *arguments]
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output, check=False).returncode
    if code:
        print(f"  exit code {code}; see {FOLDER / log}", flush=True)
    return code, time.perf_counter() - started


def refusal(device: str) -> str | None:
    """Return why nothing can be measured on a device here, or None."""
    try:
        import torch
    except ImportError:
        return "torch is not installed in this environment"
    if not device.startswith("cuda"):
        return f"'{device}' is no CUDA device: this script is for cuda, cuda:0, cuda:1"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device" + (
            ": it is a build for the CPU" if torch.version.cuda is None else ": see nvidia-smi for the driver"
        )
    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        return f"there is no '{device}': torch finds {torch.cuda.device_count()}"
    return None


def describe(device: str) -> str:
    """Return the GPU, the driver and the versions, in a line."""
    import torch

    from unitrain.backends.versions import versions
    from unitrain.machine import cpu_line

    shape = torch.cuda.get_device_properties(device)
    given = ", ".join(f"{name} {version}" for name, version in versions(["numpy", "torch"]).items())
    return (
        f"{shape.name}, {shape.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, cuDNN "
        f"{torch.backends.cudnn.version()}, with {cpu_line('model name')}; {given}; float32 without TF32."
    )


def run_sections(names: Sequence[str], options: Options) -> tuple[list[str], bool]:
    """Do the sections; return the lines of the table and whether all passed."""
    lines: list[str] = []
    passed = True
    for name in names:
        print(f"== {name}", flush=True)
        try:
            found = SECTIONS[name](options)
        except Exception as error:  # one section must not take the others with it
            found = Found(
                [f"**{name} broke off**: {type(error).__name__}: {' '.join(str(error).split())[:300]}"], False
            )
        print("\n".join(found.lines), flush=True)
        lines += ["", *found.lines]
        passed &= found.passed
    return lines, passed


def main() -> None:
    """Check, measure, print, and write the page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="sections, by commas")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--list", action="store_true", help="name the sections and do nothing")
    given = parser.parse_args()
    names = [name.strip() for name in given.only.split(",") if name.strip()] or list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown or given.rounds < 1:
        parser.error(
            f"there is no section {', '.join(unknown)}; sections: {', '.join(SECTIONS)}" if unknown else "--rounds"
        )
    if given.list:
        for name in names:
            print(f"{name}: {(SECTIONS[name].__doc__ or '').splitlines()[0]}")
        return
    why = refusal(given.device)
    if why is not None:
        print(f"scripts/bench-gpu cannot run here: {why}", file=sys.stderr)
        sys.exit(2)
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    # cuBLAS has one order of sums only with a workspace of its own; it reads this when it is loaded.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    options = Options(given.device if ":" in given.device else f"{given.device}:0", given.rounds)
    about = describe(options.device)
    lines, passed = run_sections(names, options)
    table = "\n".join([about, *lines])
    print(f"\n{table}")
    if given.write:
        from comparison import write_between

        write_between(table, "gpu")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
