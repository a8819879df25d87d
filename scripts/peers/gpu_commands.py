"""Commands of unitrain on the GPU, each in a process of its own: verify, fit, bench."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gpu_section import Found, Options

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "runs" / "bench-gpu"
MODELS = ("models/mlp.yaml", "models/lenet5.yaml", "models/cnn.yaml", "models/resnet20.yaml")


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
