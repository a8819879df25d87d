"""Checks and times unitrain on an NVIDIA GPU; `scripts/bench-gpu` makes the environment and runs this.

scripts/bench-gpu [--rounds 9] [--only SECTION,...] [--device cuda:0] [--write] [--list]

The sections are independent of one another: what breaks off in one is written down, and the others are done.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gpu_commands import bench, fit, verify
from gpu_costs import memory, training
from gpu_rightness import repeatability, synchronisation
from gpu_section import Found, Options

ROOT = Path(__file__).resolve().parents[2]


SECTIONS: dict[str, Callable[[Options], Found]] = {
    "repeatability": repeatability,
    "synchronisation": synchronisation,
    "training": training,
    "memory": memory,
    "fit": fit,
    "verify": verify,
    "bench": bench,
}


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
