"""Times unitrain against its peers, turn by turn in one run, and prints a table for docs/performance.md.

scripts/bench-peers [--only PATTERN,...] [--rounds 9] [--threads 2] [--write] [--list]

A pattern is a group (torch, lightning, keras, numpy, onnx, memory, start) or a part of a row's name:
--only "cnn / keras fit".
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from apart import apart
from comparison import GROUPS, HEADER, OTHER_TABLES, Comparison, Peer, Run, compare, write_between

ROOT = Path(__file__).resolve().parents[2]
BATCH = 128
# Of a run. A fit places its data once, for all of them, as the loops by hand do.
EPOCHS = 3
# Steps of an epoch: a tenth of a second or so (Fashion-MNIST has 469 steps of 128 samples). What is done once an epoch
# or once a run, such as placing the data, counts for more where epochs are shorter still.
STEPS = {"tiny": 500, "mlp": 100, "lenet": 30, "cnn": 8, "resnet20": 3, "lstm": 20, "transformer": 5}
# Of the processes of a row: see `comparison.compare`.
STARTS = 3
# What is called many times in a run, so that asking for it counts for nothing.
CALLS = {"convolution": 10, "one sample": 1000}
# Larger models are timed with smaller batches.
BATCHES = {"tiny": 8, "resnet20": 32, "lstm": 64, "transformer": 32}
# What is installed by scripts/bench-peers alone, for the rows of the group "lightning".
FOREIGN = ("lightning", "skorch", "accelerate")


def batch_of(name: str) -> int:
    """Return the batch size of a model's rows."""
    return BATCHES.get(name, BATCH)


@cache
def material(name: str) -> tuple[Any, Any, Any]:
    """Return graph, images and classes of an epoch: the same for all sides."""
    from ours import make_data, make_graph

    graph = make_graph(name)
    return graph, *make_data(graph, STEPS[name] * batch_of(name))


def ours(name: str, backend: str) -> Run:
    """Build a run of the shared trainer."""
    from ours import make_trainer

    return make_trainer(*material(name), backend, batch_of(name), epochs=EPOCHS).run


def theirs(module: str, maker: str, name: str, **options: Any) -> Run:
    """Build a run of a peer, whose epoch is made by a function of one of the modules beside this one."""
    _, images, classes = material(name)
    epoch: Run = getattr(importlib.import_module(module), maker)(name, images, classes, batch_of(name), **options)
    return repeated(epoch, EPOCHS)


def by_hand(name: str, bound: float | None, **options: Any) -> Peer:
    """Return the loop that a careful torch user writes."""
    return Peer(partial(theirs, "torch_loops", "make_epoch", name, **options), bound)


def in_our_process(make: Callable[[], Run]) -> Run:
    """Build a run of a peer in a process with our settings: what is left is the difference of the loops."""
    from unitrain.backends.host_memory import keep_freed_memory

    keep_freed_memory()
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    return make()


def comparisons() -> Iterator[Comparison]:
    """Declare all rows; nothing is imported or built before one is timed."""
    torch_bounds = {"tiny": 1.10, "mlp": 1.02, "lenet": 1.02, "cnn": 0.80}
    for name, bound in {**torch_bounds, "resnet20": 1.02, "lstm": 1.02, "transformer": 1.02}.items():
        peers = {"torch loop by hand": by_hand(name, bound)}
        if name in ("lenet", "cnn", "resnet20"):
            peers["torch loop by hand, channels last"] = by_hand(name, 1.02, channels_last=True)
        if name not in ("tiny", "mlp"):  # whose steps free little
            best, peer = list(peers.items())[-1]
            peers[f"{best}, freed memory kept"] = Peer(partial(in_our_process, peer.make))
        yield Comparison("torch", f"torch {name}", partial(ours, name, "torch"), peers, EPOCHS * STEPS[name])
    yield Comparison(
        "lightning",
        "torch tiny",
        partial(ours, "tiny", "torch"),
        {
            "Lightning bare": Peer(partial(theirs, "lightning_loops", "make_epoch", "tiny", bare=True), 0.40),
            "Lightning with bar and log": Peer(
                partial(theirs, "lightning_loops", "make_epoch", "tiny", bare=False), 0.25
            ),
            "skorch": Peer(partial(theirs, "skorch_loops", "make_epoch", "tiny")),
            "Accelerate": Peer(partial(theirs, "accelerate_loops", "make_epoch", "tiny")),
        },
        EPOCHS * STEPS["tiny"],
    )
    for name, bound in {"mlp": 0.40, "lenet": 0.75, "cnn": 0.95}.items():
        peers = {
            "Keras fit": Peer(partial(theirs, "keras_loops", "make_fit", name), bound),
            "tf.function over an epoch": Peer(partial(theirs, "keras_loops", "make_epoch", name), 1.03),
        }
        epoch = peers["tf.function over an epoch"].make
        peers["tf.function over an epoch, oneDNN on"] = Peer(partial(in_our_process, epoch))
        yield Comparison("keras", f"keras {name}", partial(ours, name, "keras"), peers, EPOCHS * STEPS[name])
    for name in ("resnet20", "lstm", "transformer"):
        peers = {"Keras fit": Peer(partial(theirs, "keras_loops", "make_fit", name), 1.0)}
        yield Comparison("keras", f"keras {name}", partial(ours, name, "keras"), peers, EPOCHS * STEPS[name])
    for name, bound in {"mlp": 0.95, "lenet": 0.90, "cnn": 0.85}.items():
        peers = {"torch loop by hand": by_hand(name, bound)}
        yield Comparison("numpy", f"numpy {name}", partial(ours, name, "numpy"), peers, EPOCHS * STEPS[name])
    yield Comparison(
        "numpy",
        "numpy convolution 32 to 64, 14 x 14",
        partial(convolution_block, ours=True),
        {"fancy indices and add.at": Peer(partial(convolution_block, ours=False), 0.30)},
        CALLS["convolution"],
    )
    for name in ("mlp", "lenet", "cnn"):
        yield Comparison(
            "onnx",
            f"ONNX {name}, batch 1",
            partial(one_sample, name, ours=True),
            {"torch eager": Peer(partial(one_sample, name, ours=False), 0.4)},
            CALLS["one sample"],
        )


def repeated(run: Run, calls: int) -> Run:
    """Return many calls as one run."""

    def runs() -> None:
        for _ in range(calls):
            run()

    return runs


def convolution_block(*, ours: bool) -> Run:
    """Return a convolution forward and backward, batch 32: ours, or the one by fancy indices, with which it agrees."""
    import numpy as np
    from numpy_block import convolve

    from unitrain.backends.numpy.model import NumpyModel
    from unitrain.graph.resolve import resolve
    from unitrain.spec.model import ModelSpec
    from unitrain.weights.initialize import initialize

    layer = {"type": "conv2d", "name": "conv", "filters": 64, "kernel_size": 3, "padding": "same", "use_bias": False}
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [14, 14, 32]}}, "layers": [layer]}))
    weights = initialize(graph, 0)
    model = NumpyModel(graph, weights)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(32, 14, 14, 32)).astype(np.float32)
    dy = generator.normal(size=(32, 14, 14, 64)).astype(np.float32)
    first = [np.ascontiguousarray(array.transpose(0, 3, 1, 2)) for array in (x, dy)]
    kernel = np.ascontiguousarray(weights["conv.kernel"].transpose(3, 2, 0, 1))

    def own() -> tuple[dict[str, Any], dict[str, Any]]:
        model.forward(x, training=True)
        return model.backward({"conv": dy})

    (by_input, by_parameter), (_, dx, d_kernel) = own(), convolve(first[0], kernel, first[1])
    np.testing.assert_allclose(by_input["x"].transpose(0, 3, 1, 2), dx, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(by_parameter["conv.kernel"].transpose(3, 2, 0, 1), d_kernel, rtol=1e-3, atol=1e-2)
    run: Run = own if ours else partial(convolve, first[0], kernel, first[1])
    return repeated(run, CALLS["convolution"])


def one_sample(name: str, *, ours: bool) -> Run:
    """Return a model called with one sample: the exported one, or torch's in ``inference_mode``."""
    import torch
    import torch_loops

    from unitrain.backends import load_backend
    from unitrain.backends.contract import Settings
    from unitrain.weights.initialize import initialize

    graph, images, _ = material(name)
    image = images[:1]
    if ours:
        program = load_backend("onnx").compile(graph, initialize(graph, 0), Settings())
        (given,) = graph.inputs
        return repeated(lambda: program.predict({given: image}), CALLS["one sample"])
    model = torch_loops.make_model(name).eval()
    x = torch.tensor(image if image.ndim == 2 else image.transpose(0, 3, 1, 2).copy())

    def eager() -> object:
        with torch.inference_mode():
            return model(x).numpy()

    return repeated(eager, CALLS["one sample"])


START_RECIPE = """
name: start
model:
  inputs: {image: {shape: [8, 8, 1]}}
  layers:
    - {type: conv2d, filters: 8, kernel_size: 3, activation: relu}
    - {type: flatten}
    - {type: dense, name: y, units: 10}
data: {source: {type: npz, file: start.npz, inputs: {image: x}, targets: {y: y}}}
loss: cross_entropy
optimizer: {type: adam}
metrics: [accuracy]
"""


def start_rows(rounds: int) -> Iterator[str]:
    """Seconds of fresh processes: the help, and what a fit does up to its first step beside importing its framework."""
    import time
    from statistics import median

    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        x, y = generator.random((2000, 8, 8, 1), dtype=np.float32), generator.integers(0, 10, 2000)
        np.savez(f"{folder}/start.npz", x=x, y=y)
        Path(folder, "start.yaml").write_text(START_RECIPE, encoding="utf-8")
        # Modules are compiled once, as they are where unitrain is installed.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": f"{folder}/compiled"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def seconds(*command: str) -> float:
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env=environment, cwd=ROOT)
            return time.perf_counter() - started

        def beyond(backend: str) -> float:
            rehearsal = ["fit", f"{folder}/start.yaml", "--backend", backend, "--dry-run"]
            return seconds("-m", "unitrain", *rehearsal) - seconds("-c", f"import {backend}")

        tried: dict[str, Callable[[], float]] = {
            "`unitrain --help`": lambda: seconds("-m", "unitrain", "--help") - seconds("-c", "pass"),
            "a rehearsed NumPy fit, beyond `import numpy`": lambda: beyond("numpy"),
            "a rehearsed torch fit, beyond `import torch`": lambda: beyond("torch"),
        }
        found: dict[str, list[float]] = {name: [] for name in tried}
        for number in range(rounds + 1):
            for name, try_once in tried.items():
                value = try_once()
                if number:  # the first compiles, and reads files that are in no cache yet
                    found[name].append(value)
    for name, values in found.items():
        yield f"| {name} | {median(values):.2f} s | {min(values):.2f} s |"


def choose(patterns: Sequence[str]) -> list[Comparison]:
    """Return the comparisons that are wanted; exit with code 2 where a pattern names nothing."""
    every = list(comparisons())
    lost = [
        pattern
        for pattern in patterns
        if pattern not in OTHER_TABLES and not any(comparison.chosen([pattern]) for comparison in every)
    ]
    if lost:
        named = ", ".join(map(repr, lost))
        print(f"no row is called {named}; groups: {', '.join(GROUPS)}; --list shows all rows", file=sys.stderr)
        sys.exit(2)
    return [found for comparison in every if (found := comparison.chosen(patterns))]


def main() -> None:
    """Measure, print, and write the page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="groups, or parts of rows' names, by commas")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--list", action="store_true", help="name the rows and time nothing")
    options = parser.parse_args()
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads are at least 1")
    patterns = [pattern.strip() for pattern in options.only.split(",") if pattern.strip()]
    chosen = choose(patterns)
    if options.list:
        for comparison in chosen:
            for peer in comparison.peers:
                print(f"{comparison.group}: {comparison.what} / {peer}")
        return
    # Before any framework is imported, so that all have as many.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ[name] = str(options.threads)
    # What the shell says of OpenBLAS' kernels would hold back NumPy alone.
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    from unitrain.backends.versions import versions
    from unitrain.machine import describe

    machine = describe()
    given = versions(["numpy", "keras", "torch", "onnx"]) | foreign_versions()
    lines = [
        f"{machine['processor']}, {options.threads} {'thread' if options.threads == 1 else 'threads'} on all "
        f"sides, {options.rounds} interleaved rounds, each side in a process of its own; "
        + ", ".join(f"{name} {version}" for name, version in given.items())
        + f"; NumPy's BLAS: {machine['blas']}.",
    ]
    if chosen:
        lines += ["", *HEADER]
        print("\n".join(HEADER))
    for comparison in chosen:
        missing = [name for name in FOREIGN if comparison.group == "lightning" and name not in given]
        if missing:
            lines.append(f"| {comparison.what} | {', '.join(missing)} | not installed here | | | | | |")
            print(lines[-1], flush=True)
            continue
        for row in compare(comparison, options.rounds, apart, STARTS):
            lines.append(row.markdown())
            print(lines[-1], flush=True)
    if not patterns or "memory" in patterns:
        import memory

        lines += ["", *memory.HEADER, *(memory.row(name, options.threads) for name in memory.MODELS)]
    if not patterns or "start" in patterns:
        lines += ["", "| start-up | median | least |", "|---|---|---|", *start_rows(min(5, options.rounds))]
    table = "\n".join(lines)
    print(f"\n{table}")
    if options.write:
        write_between(table, "peers")


def foreign_versions() -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    from importlib import metadata

    return {name: metadata.version(name) for name in FOREIGN if importlib.util.find_spec(name) is not None}


if __name__ == "__main__":
    main()
