"""What the process itself does: which modules it imports, how fast it answers, how it meets a closed pipe."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from unitrain import __version__

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = {"torch", "tensorflow", "keras", "onnxruntime", "onnx", "matplotlib"}
LIBRARIES = {"sklearn", "pyarrow", "scipy", "pandas"}

_LIST_MODULES = """
import sys
from unitrain.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print("MODULES", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _modules(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _LIST_MODULES, *arguments],
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]], ids=" ".join)
def test_overview_imports_next_to_nothing(arguments: list[str]) -> None:
    heavy = FRAMEWORKS | LIBRARIES | {"numpy", "pydantic", "rich", "yaml"}
    assert _modules(*arguments) & heavy == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "models/resnet20.yaml", "recipes/digits-cnn.yaml"],
        ["summary", "models/cnn.yaml"],
        ["schema", "recipe"],
        ["fit", "--help"],
        ["evaluate", "--help"],
        ["predict", "--help"],
        ["verify", "--help"],
        ["export", "--help"],
        ["bench", "--help"],
        ["doctor", "--help"],
    ],
    ids=" ".join,
)
def test_verbs_without_training_import_no_framework(arguments: list[str]) -> None:
    assert _modules(*arguments) & (FRAMEWORKS | LIBRARIES) == set()


START_RECIPE = """
model:
  inputs: {x: {shape: [4]}}
  layers: [{type: dense, name: y, units: 3}]
data: {source: {type: npz, file: data.npz, inputs: {x: x}, targets: {y: y}}}
loss: cross_entropy
optimizer: {type: adam}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=np.arange(60) % 3)
    (folder / "recipe.yaml").write_text(START_RECIPE, encoding="utf-8")
    return folder / "recipe.yaml"


def test_a_fit_on_numpy_imports_numpy_alone(recipe: Path) -> None:
    heavy = FRAMEWORKS | LIBRARIES | {"rich", "PIL", "jinja2", "multiprocessing"}
    assert _modules("fit", str(recipe), "--dry-run") & heavy == set()


def test_a_fit_on_torch_imports_no_other_framework_and_no_compiler(recipe: Path) -> None:
    heavy = (FRAMEWORKS - {"torch"}) | LIBRARIES | {"rich", "PIL", "triton"}
    assert _modules("fit", str(recipe), "--dry-run", "--backend", "torch") & heavy == set()


def test_a_recipe_builds_the_layers_that_it_uses(recipe: Path) -> None:
    script = (
        "import sys\n"
        "from unitrain.train.recipe import load_recipe\n"
        "from unitrain.spec.layers import LAYER_TYPES\n"
        "load_recipe(sys.argv[1])\n"
        "print(*(name for name, layer in LAYER_TYPES.items() if layer.__pydantic_complete__))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, recipe], env=_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["dense"]


def test_help_is_fast() -> None:
    """0.3 s on a quiet machine; the best of several tries, in units of the machine's own speed when it is busy."""

    def best(*arguments: str) -> float:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], cwd=ROOT, env=_environment(), capture_output=True, check=True)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    # An import of the standard library that takes about 0.06 s on a quiet machine of 2020.
    slowness = max(1.0, best("-c", "import asyncio, inspect, subprocess") / 0.1)
    assert best("-m", "unitrain", "--help") < 0.3 * slowness


def test_closed_pipe_is_quiet() -> None:
    # A reader that goes away at once, and far more output than a pipe holds.
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "unitrain", "schema", "recipe"],
        cwd=ROOT,
        env=_environment(),
        stdout=write_end,
        stderr=subprocess.PIPE,
    )
    os.close(write_end)
    os.close(read_end)
    _, err = process.communicate(timeout=60)
    assert err == b""


def test_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unitrain", "nosuch"], cwd=ROOT, env=_environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "unknown command 'nosuch'" in done.stderr


def test_a_process_ends_as_pythons_do(tmp_path):
    """Threads are waited for and exit handlers run, although memory is not freed before."""
    program = (
        "import atexit, sys, threading, time\n"
        "from unitrain.cli.main import command\n"
        "atexit.register(print, 'exit handler')\n"
        "threading.Thread(target=lambda: (time.sleep(0.5), print('thread'))).start()\n"
        "sys.argv[1:] = ['--version']\n"
        "command()\n"
    )
    with (tmp_path / "out").open("w") as file:  # what is written to a file is buffered
        ended = subprocess.run(
            [sys.executable, "-c", program], stdout=file, env=_environment(), timeout=60, check=False
        )
    assert ended.returncode == 0
    assert (tmp_path / "out").read_text().splitlines() == [f"unitrain {__version__}", "thread", "exit handler"]
