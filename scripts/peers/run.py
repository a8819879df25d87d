"""Times unitrain against its peers, interleaved in one process, and prints a table for docs/performance.md.

scripts/bench-peers [--only torch,keras] [--rounds 9] [--threads 2] [--write]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitrain.backends.contract import Program

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
START, END = "<!-- peers: start -->", "<!-- peers: end -->"
BATCH = 128
# Steps of an epoch: long enough to be timed, short enough for many rounds.
STEPS = {"tiny": 400, "mlp": 60, "lenet": 20, "cnn": 6}
Epoch = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One comparison: what is timed, ours and theirs in seconds a step, the ratio, and what it may be."""

    what: str
    theirs: str
    ours_seconds: float
    their_seconds: float
    ratio: float
    least: float
    bound: float


def compare(what: str, ours: Epoch, theirs: dict[str, tuple[Epoch, float]], steps: int, rounds: int) -> Iterator[Row]:
    """Time one of ours and several of theirs turn by turn; ``theirs`` has the bound of each ratio."""
    import numpy as np

    from unitrain.bench.timing import Contender, measure

    contenders = [Contender("ours", ours), *(Contender(name, epoch) for name, (epoch, _) in theirs.items())]
    for contender in contenders:
        contender.run()
    seconds = measure(contenders, rounds=rounds, generator=np.random.default_rng(0)).seconds
    own = seconds["ours"]
    for name, (_, bound) in theirs.items():
        other = seconds[name]
        ratio, least = float(np.median(own / other)), float(own.min() / other.min())
        yield Row(what, name, float(np.median(own)) / steps, float(np.median(other)) / steps, ratio, least, bound)


def torch_rows(rounds: int) -> Iterator[Row]:
    """The torch backend against loops by hand."""
    import torch_loops
    from ours import make_data, make_graph, make_trainer

    bounds = {"tiny": 1.10, "mlp": 1.02, "lenet": 1.02, "cnn": 0.80}
    for name, bound in bounds.items():
        batch = 8 if name == "tiny" else BATCH
        graph = make_graph(name)
        data = make_data(graph, STEPS[name] * batch)
        ours = make_trainer(graph, *data, "torch", batch).run
        theirs = {"torch loop by hand": (torch_loops.make_epoch(name, *data, batch), bound)}
        if name in ("lenet", "cnn"):
            last = torch_loops.make_epoch(name, *data, batch, channels_last=True)
            theirs["torch loop by hand, channels last"] = (last, 1.02)
        yield from compare(f"torch {name}", ours, theirs, STEPS[name], rounds)


def lightning_rows(rounds: int) -> Iterator[Row]:
    """The torch backend against Lightning, on the tiny model."""
    import lightning_loops
    from ours import make_data, make_graph, make_trainer

    graph = make_graph("tiny")
    data = make_data(graph, STEPS["tiny"] * 8)
    theirs = {
        "Lightning bare": (lightning_loops.make_epoch("tiny", *data, 8, bare=True), 0.40),
        "Lightning with bar and log": (lightning_loops.make_epoch("tiny", *data, 8, bare=False), 0.25),
    }
    yield from compare("torch tiny", make_trainer(graph, *data, "torch", 8).run, theirs, STEPS["tiny"], rounds)


def keras_rows(rounds: int) -> Iterator[Row]:
    """The Keras backend against ``fit`` and a function over an epoch."""
    import keras_loops
    from ours import make_data, make_graph, make_trainer

    for name, bound in {"mlp": 0.40, "lenet": 0.75, "cnn": 0.95}.items():
        graph = make_graph(name)
        data = make_data(graph, STEPS[name] * BATCH)
        theirs = {
            "Keras fit": (keras_loops.make_fit(name, *data, BATCH), bound),
            "tf.function over an epoch": (keras_loops.make_epoch(name, *data, BATCH), 1.03),
        }
        yield from compare(f"keras {name}", make_trainer(graph, *data, "keras", BATCH).run, theirs, STEPS[name], rounds)


def numpy_rows(rounds: int) -> Iterator[Row]:
    """The NumPy backend against torch's eager loop, and a convolution against the usual one."""
    import torch_loops
    from ours import make_data, make_graph, make_trainer

    for name, bound in {"mlp": 0.95, "lenet": 0.90, "cnn": 0.85}.items():
        graph = make_graph(name)
        data = make_data(graph, STEPS[name] * BATCH)
        theirs = {"torch loop by hand": (torch_loops.make_epoch(name, *data, BATCH), bound)}
        yield from compare(f"numpy {name}", make_trainer(graph, *data, "numpy", BATCH).run, theirs, STEPS[name], rounds)
    yield from compare("numpy convolution 32 to 64, 14 x 14", *convolution_block(), 1, rounds)


def convolution_block() -> tuple[Epoch, dict[str, tuple[Epoch, float]]]:
    """Return a convolution forward and backward, batch 32: ours, and the one by fancy indices."""
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

    def ours() -> object:
        model.forward(x, training=True)
        return model.backward({"conv": dy})

    (by_input, by_parameter), (_, dx, d_kernel) = ours(), convolve(first[0], kernel, first[1])
    np.testing.assert_allclose(by_input["x"].transpose(0, 3, 1, 2), dx, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(by_parameter["conv.kernel"].transpose(3, 2, 0, 1), d_kernel, rtol=1e-3, atol=1e-2)
    return ours, {"fancy indices and add.at": (lambda: convolve(first[0], kernel, first[1]), 0.30)}


def onnx_rows(rounds: int) -> Iterator[Row]:
    """Exported models with one sample, against torch."""
    import torch
    import torch_loops
    from ours import make_data, make_graph

    from unitrain.backends import load_backend
    from unitrain.backends.contract import Settings
    from unitrain.weights.initialize import initialize

    for name in ("mlp", "lenet", "cnn"):
        graph = make_graph(name)
        images, _ = make_data(graph, 1)
        program = load_backend("onnx").compile(graph, initialize(graph, 0), Settings())
        model = torch_loops.make_model(name).eval()
        x = torch.tensor(images if images.ndim == 2 else images.transpose(0, 3, 1, 2).copy())
        (given,) = graph.inputs

        def theirs(model: torch.nn.Module = model, x: torch.Tensor = x) -> object:
            with torch.inference_mode():
                return model(x).numpy()

        def ours(program: Program = program, given: str = given, images: Any = images) -> object:
            return program.predict({given: images})

        yield from compare(f"ONNX {name}, batch 1", ours, {"torch eager": (theirs, 0.4)}, 1, rounds)


def start_rows(rounds: int) -> Iterator[str]:
    """Seconds of fresh processes: the help, and what a fit adds to the import of its framework."""
    import time
    from statistics import median

    with tempfile.TemporaryDirectory() as folder:
        fit = "from unitrain.cli.main import main; main()"

        def seconds(*command: str) -> float:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env=environment, cwd=ROOT)
            return time.perf_counter() - started

        def check(backend: str) -> float:
            recipe = ["fit", "recipes/digits-cnn.yaml", "--backend", backend, "--dry-run", "--out", f"{folder}/x"]
            return seconds("-c", fit, *recipe)

        tries: dict[str, list[float]] = {}
        for _ in range(rounds):
            found = {
                "`unitrain --help`": seconds("-m", "unitrain", "--help") - seconds("-c", "pass"),
                "a NumPy fit, beyond `import numpy, sklearn`": check("numpy")
                - seconds("-c", "import numpy, sklearn.datasets"),
                "a torch fit, beyond `import torch, sklearn`": check("torch")
                - seconds("-c", "import torch, sklearn.datasets"),
            }
            for name, value in found.items():
                tries.setdefault(name, []).append(value)
    for name, values in tries.items():
        yield f"| {name} | {median(values):.2f} s | {min(values):.2f} s |"


GROUPS = {
    "torch": torch_rows,
    "lightning": lightning_rows,
    "keras": keras_rows,
    "numpy": numpy_rows,
    "onnx": onnx_rows,
}


def main() -> None:
    """Measure, print, and write the page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join([*GROUPS, "start"]), help="groups, by commas")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    # Before any framework is imported, so that all have as many.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ[name] = str(options.threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    from unitrain.backends.versions import versions
    from unitrain.bench.machine import cpu_line

    lines = [
        f"{cpu_line('model name')}, {options.threads} threads on all sides, {options.rounds} interleaved rounds; "
        + ", ".join(f"{name} {version}" for name, version in versions(["numpy", "keras", "torch", "onnx"]).items())
        + ".",
        "",
        "| ours | theirs | ours a step | theirs a step | ratio, median of the rounds | of the minima | at most | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    chosen = options.only.split(",")
    for group in (name for name in GROUPS if name in chosen):
        if group == "lightning" and importlib.util.find_spec("lightning") is None:
            lines.append("| torch tiny | Lightning | not installed here | | | | | |")
            continue
        for row in GROUPS[group](options.rounds):
            met = "met" if row.ratio <= row.bound else "**missed**"
            lines.append(
                f"| {row.what} | {row.theirs} | {1e6 * row.ours_seconds:,.0f} us | {1e6 * row.their_seconds:,.0f} us "
                f"| {row.ratio:.2f} | {row.least:.2f} | {row.bound:.2f} | {met} |"
            )
            print(lines[-1], flush=True)
    if "start" in chosen:
        lines += ["", "| start-up | median | least |", "|---|---|---|", *start_rows(5)]
    table = "\n".join(lines)
    print(table)
    if options.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
        PAGE.write_text(f"{before}{START}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
