"""Peak memory of two epochs in a process of its own: ``python memory.py ours|theirs MODEL THREADS`` prints bytes.

Of the whole process, from its start, so that what is imported counts too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = ["| peak memory of a process | ours | torch loop by hand | ratio | at most | |", "|---|---|---|---|---|---|"]
BOUND = 1.1
# Samples and shape of each: enough that data and activations count beside what torch itself takes.
MODELS = {"mlp": (20_000, (784,)), "lenet": (20_000, (28, 28, 1)), "cnn": (5_000, (28, 28, 1))}
BATCH = 128


def peak_bytes(side: str, name: str, threads: int) -> int:
    """Run one side in a fresh process."""
    command = [sys.executable, str(Path(__file__)), side, name, str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def row(name: str, threads: int, tries: int = 2) -> str:
    """Return a row of the table: the least of some tries each, in turn."""
    tried = [(peak_bytes("ours", name, threads), peak_bytes("theirs", name, threads)) for _ in range(tries)]
    own, other = (min(values) for values in zip(*tried, strict=True))
    ratio, sizes = own / other, f"{own / 2**20:,.0f} MiB | {other / 2**20:,.0f} MiB"
    return f"| torch {name} | {sizes} | {ratio:.2f} | {BOUND:.2f} | {'met' if ratio <= BOUND else '**missed**'} |"


def main(side: str, name: str) -> None:
    """Train two epochs and print the peak."""
    samples, shape = MODELS[name]
    if side == "ours":
        from ours import make_data, make_graph, make_trainer

        graph = make_graph(name)
        images, classes = make_data(graph, samples)
        trainer = make_trainer(graph, images, classes, "torch", BATCH)
        for _ in range(2):
            trainer.run()
    else:
        import numpy as np
        from torch_loops import make_epoch

        generator = np.random.default_rng(0)
        images = generator.random((samples, *shape), dtype=np.float32)
        classes = generator.integers(0, 10, samples).astype(np.int32)
        epoch = make_epoch(name, images, classes, BATCH, channels_last=len(shape) > 1)
        for _ in range(2):
            epoch()
    from unitrain.machine import peak_memory

    print(peak_memory() or 0)


if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = sys.argv[3]
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    main(sys.argv[1], sys.argv[2])
