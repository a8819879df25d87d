"""Faults from outside, each a real process, a real file, a real signal: a clear end, and a run that goes on."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from survival.runs import RECIPE, differences, environment, unitrain

from unitrain.spec.errors import InputError
from unitrain.train.fit import fit, resume
from unitrain.train.memory import answered
from unitrain.train.plan import Batches
from unitrain.train.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "iris.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ENDLESS = ["--epochs", "1000000", "--set", "training.early_stopping=null"]


@pytest.fixture
def begin() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a run that does not end by itself; return when its first epoch is done."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "unitrain", "fit", *arguments, *ENDLESS, "--out", "run"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        started.append(process)
        deadline = time.monotonic() + 60
        metrics = Path("run") / "metrics.jsonl"
        while time.monotonic() < deadline and process.poll() is None and not (metrics.exists() and metrics.read_text()):
            time.sleep(0.05)
        assert metrics.exists(), process.communicate()[1]
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def said(done: Any, code: int, *words: str) -> None:
    """See that a process ended with a code and said why, without a traceback."""
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert "has a bug" not in done.stderr


def test_sigterm_saves_and_ends_as_schedulers_expect(folder, begin):
    process = begin("iris.yaml")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    result = json.loads(Path("run/result.json").read_text())
    assert result["reason"] == "terminated"
    assert "unitrain fit --resume run" in result["message"]
    epochs = result["epoch"] + 2
    state = RunFolder(Path("run")).checkpoints.newest().state
    assert state.updates == result["updates"]
    fit("iris.yaml", out="whole", overrides=[f"training.epochs={epochs}", "training.early_stopping=null"])
    resume("run", overrides=[f"training.epochs={epochs}"])
    assert differences(Path("whole"), Path("run")) == []


def test_two_processes_do_not_train_in_one_folder_and_a_killed_one_does_not_hold_it(folder, begin):
    process = begin("iris.yaml")
    said(unitrain("fit", "--resume", "run"), 2, "the run folder is in use", f"process {process.pid} on")
    said(unitrain("fit", "iris.yaml", "--out", "run"), 2, "is there already")
    with pytest.raises(InputError, match="in use"):
        resume("run")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = unitrain("fit", "--resume", "run", "--epochs", "2")
    assert "in use" not in done.stderr


def test_one_process_does_not_train_twice_in_one_folder(folder):
    run = fit("iris.yaml", out="run", overrides=["training.max_steps=5"]).folder
    with run.locked(), pytest.raises(InputError, match="in use"):
        resume("run")


def limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_ends_the_run_with_its_checkpoints_sound(folder):
    """No file may grow beyond 40 kB: the checkpoint of 2048 units does not fit, small files do."""
    wide = ["--set", "model.layers.0.units=2048"]
    done = unitrain("fit", "iris.yaml", *wide, "--out", "run", preexec_fn=limited(40_000))
    said(done, 2, "step-00000004.safetensors: cannot be written")
    assert list(Path("run").rglob("*.tmp")) == []
    assert RunFolder(Path("run")).checkpoints.steps() == []
    assert unitrain("fit", "--resume", "run").returncode == 0
    fit("iris.yaml", out="whole", overrides=wide[1:])
    assert differences(Path("whole"), Path("run")) == []


def test_a_disk_that_fills_in_mid_run_keeps_what_was_written(folder):
    fit("iris.yaml", out="whole")
    fit("iris.yaml", out="run", overrides=["training.max_steps=9"])
    before = RunFolder(Path("run")).checkpoints.steps()
    done = unitrain("fit", "--resume", "run", "--set", "training.max_steps=null", preexec_fn=limited(3000))
    said(done, 2, "cannot be written")
    assert RunFolder(Path("run")).checkpoints.steps() == before
    resume("run", overrides=["training.max_steps=null"])
    assert differences(Path("whole"), Path("run")) == []


def without_a_right_to_everything() -> None:
    """Take from root, in a child, what lets it write where permissions say no: CAP_DAC_OVERRIDE."""
    if os.geteuid() == 0:
        drop, dac_override = 24, 1  # PR_CAPBSET_DROP, see prctl(2) and capabilities(7)
        ctypes.CDLL(None).prctl(drop, dac_override, 0, 0, 0)


def test_a_folder_that_may_not_be_written_is_said(folder):
    limits: Any = {"preexec_fn": without_a_right_to_everything}
    (folder / "locked").mkdir(mode=0o555)
    if subprocess.run(["touch", "locked/file"], capture_output=True, check=False, **limits).returncode == 0:
        pytest.skip("this machine does not let root give up its rights; a user who is not root needs not")
    done = unitrain("fit", "iris.yaml", "--out", "locked/run", **limits)
    said(done, 2, "the run folder cannot be made: Permission denied")
    run = fit("iris.yaml", out="run", overrides=["training.max_steps=9"]).folder
    before = {path: path.read_bytes() for path in run.checkpoints.path.iterdir()}
    more = ["--set", "training.max_steps=null"]
    for closed in (run.path, run.checkpoints.path):
        closed.chmod(0o555)
        done = unitrain("fit", "--resume", "run", *more, **limits)
        said(done, 2, "cannot be written: Permission denied")
        closed.chmod(0o755)
    assert before == {path: path.read_bytes() for path in run.checkpoints.path.iterdir()}
    assert unitrain("fit", "--resume", "run", *more, **limits).returncode == 0


def test_a_clock_that_goes_back_changes_nothing(folder, monkeypatch):
    from datetime import datetime, timedelta

    from unitrain.train import run_folder

    now = datetime(2026, 1, 2)

    class Backwards(datetime):
        @classmethod
        def now(cls, tz=None):
            nonlocal now
            now -= timedelta(hours=1)
            return now

    fit("iris.yaml", out="whole")
    monkeypatch.setattr(run_folder, "datetime", Backwards)
    monkeypatch.setattr(time, "time", lambda: now.timestamp())
    fit("iris.yaml", out="run", overrides=["training.max_steps=9"])
    for path in (folder / "run").rglob("*"):
        os.utime(path, (0, 0))
    resume("run", overrides=["training.max_steps=17"])
    resume("run", overrides=["training.max_steps=null"])
    assert differences(Path("whole"), Path("run")) == []


def test_two_runs_of_one_second_have_folders_of_their_own(folder, monkeypatch):
    from datetime import datetime

    from unitrain.train import run_folder

    class Standing(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2)

    monkeypatch.setattr(run_folder, "datetime", Standing)
    names = [fit("iris.yaml", overrides=["training.epochs=1"]).folder.path.name for _ in range(3)]
    assert names == [f"iris-numpy-20260102-000000{end}" for end in ("", "-2", "-3")]


PLANTED = """\
name: planted
model:
  inputs: {x: {shape: [2]}}
  layers: [{type: dense, name: y, units: 1, kernel_initializer: {type: constant, value: 2.0}}]
data:
  source: {type: npz, file: data.npz, inputs: {x: x}, targets: {y: y}}
  split: {validation: 0, test: 0}
  numeric: none
loss: mse
optimizer: {type: sgd, lr: 0.01}
training: {epochs: 3, batch_size: 8, checkpoint_steps: 2}
"""


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("value", ["NaN", "infinity"])
def test_a_planted_nan_or_infinity_is_found_at_its_step(folder, value, backend):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(64, 2)).astype(np.float32), generator.normal(size=64).astype(np.float32)
    planted = 5
    # The first epoch's sixth batch holds it, by the order that seed and epoch give. Twice 3e38 is infinite in float32,
    # and infinity less infinity is NaN.
    x[Batches(64, 8).order(0)[planted * 8 + 3]] = 3e38
    np.savez(folder / "data.npz", x=x, y=y)
    activation = "activation: softmax, " if value == "NaN" else ""
    (folder / "planted.yaml").write_text(PLANTED.replace("units: 1, ", f"units: 1, {activation}"))
    done = unitrain("fit", "planted.yaml", "--out", "run", "--backend", backend)
    said(done, 1)
    assert f"the loss is not finite at step {planted + 1}" in done.stdout
    assert RunFolder(Path("run")).checkpoints.steps()[-1] == 4


def test_a_file_cut_short_while_it_is_read_ends_the_run_which_goes_on_with_the_whole_file(folder, begin):
    generator = np.random.default_rng(0)
    np.save("x.npy", generator.normal(size=(400, 2)).astype(np.float32))
    np.save("y.npy", generator.normal(size=400).astype(np.float32))
    source = "{type: npy, inputs: {x: x.npy}, targets: {y: y.npy}}\n  stream: always"
    (folder / "cut.yaml").write_text(PLANTED.replace(PLANTED.splitlines()[5].partition("source: ")[2], source))
    process = begin("cut.yaml")
    whole = Path("x.npy").read_bytes()
    os.truncate("x.npy", 1000)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "the file has become shorter while it is read" in printed
    assert "Traceback" not in printed
    Path("x.npy").write_bytes(whole)
    epochs = RunFolder(Path("run")).checkpoints.newest().state.epoch + 2
    resume("run", overrides=[f"training.epochs={epochs}"])
    fit("cut.yaml", out="whole", overrides=[f"training.epochs={epochs}", "training.early_stopping=null"])
    assert differences(Path("whole"), Path("run")) == []


CUT = """\
import os, sys
import numpy as np
from pathlib import Path
from unitrain.data.sources.array_file import open_npy
from unitrain.spec.errors import InputError

values = np.arange(300_000.0).reshape(100, 60, 50)
np.save("x.npy", values if sys.argv[1] == "C" else np.asfortranarray(values))
stored = open_npy(Path("x.npy"))
os.truncate("x.npy", 100_000)
try:
    stored.read_all() if sys.argv[2] == "all" else stored.read(np.array([7, 90]))
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("what", ["all", "rows"])
def test_an_array_cut_short_before_it_is_read_ends_no_process(folder, order, what):
    """Of a mapping the system would end it, with SIGBUS."""
    command = [sys.executable, "-c", CUT, order, what]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "x.npy: the file has become shorter while it is read" in done.stdout


def test_a_run_on_columns_that_lie_together_has_rows_of_its_own(folder, begin):
    """An array in Fortran's order is laid by rows once; that the file is cut short then is all the same to the run."""
    generator = np.random.default_rng(0)
    np.save("x.npy", np.asfortranarray(generator.normal(size=(400, 2)).astype(np.float32)))
    np.save("y.npy", generator.normal(size=400).astype(np.float32))
    source = "{type: npy, inputs: {x: x.npy}, targets: {y: y.npy}}\n  stream: always"
    (folder / "cut.yaml").write_text(PLANTED.replace(PLANTED.splitlines()[5].partition("source: ")[2], source))
    process = begin("cut.yaml")
    whole = Path("x.npy").read_bytes()
    os.truncate("x.npy", 1000)
    before = len(Path("run/metrics.jsonl").read_text().splitlines())
    deadline = time.monotonic() + 60
    while len(Path("run/metrics.jsonl").read_text().splitlines()) < before + 5 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    Path("x.npy").write_bytes(whole)
    epochs = RunFolder(Path("run")).checkpoints.newest().state.epoch + 2
    resume("run", overrides=[f"training.epochs={epochs}"])
    np.save("x.npy", np.ascontiguousarray(np.load("x.npy")))
    fit("cut.yaml", out="whole", overrides=[f"training.epochs={epochs}", "training.early_stopping=null"])
    assert differences(Path("whole"), Path("run")) == []


COLUMNS = """\
import numpy as np
from pathlib import Path
from unitrain.data.sources.array_file import open_npy
from unitrain.spec.errors import InputError

stored = open_npy(Path("x.npy"))
try:
    stored.read(np.array([7, 90]))
except InputError as error:
    print(error)
"""


def test_a_full_folder_for_temporary_files_is_named_where_an_array_by_columns_is_laid_by_rows(folder):
    """No file may grow beyond 40 kB: the copy by rows, of 2.4 MB, does not fit."""
    values = np.arange(300_000.0).reshape(100, 60, 50)
    np.save("x.npy", np.asfortranarray(values))
    place = folder / "small"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", COLUMNS],
        capture_output=True,
        text=True,
        env={**environment(), "TMPDIR": str(place)},
        timeout=60,
        check=False,
        preexec_fn=limited(40_000),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "x.npy: the array lies by columns, and a copy by rows cannot be written: File too large" in done.stdout
    assert f"free some of {place}, or name another folder by TMPDIR" in done.stdout
    assert list(place.iterdir()) == []


HUNGRY = """\
name: hungry
model:
  inputs: {image: {shape: [8, 8, 1]}}
  layers: [{type: conv2d, name: c, filters: 4096, kernel_size: 3, padding: same}, {type: global_average_pool, name: g},
    {type: dense, name: digit, units: 10}]
data: {source: digits, split: {validation: 0, test: 0}}
loss: cross_entropy
optimizer: {type: sgd, lr: 0.1}
training: {epochs: 1, batch_size: 1797, max_steps: 2}
"""


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_out_of_memory_is_answered_with_the_batch_size_to_try(folder, backend):
    (folder / "hungry.yaml").write_text(HUNGRY)

    def short() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2_300_000_000, 2_300_000_000))

    arguments = ["fit", "hungry.yaml", "--backend", backend]
    done = unitrain(*arguments, "--out", "run", preexec_fn=short)
    said(done, 2, "not enough memory for a training step", "--set training.batch_size=898 --set training.accumulate=2")
    tried = [*arguments, "--out", "again", "--set", "training.batch_size=8", "--set", "execution.mode=fixed"]
    assert unitrain(*tried, preexec_fn=short).returncode == 0


def test_every_framework_s_word_for_out_of_memory_is_understood():
    import tensorflow as tf
    import torch

    from unitrain.spec.training import TrainingSpec

    errors = [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
    ]
    for error in errors:
        with pytest.raises(InputError, match="not enough memory"), answered(TrainingSpec(batch_size=2)):
            raise error
    with pytest.raises(InputError) as caught, answered(TrainingSpec(batch_size=1)):
        raise MemoryError
    assert "one sample does not fit" in str(caught.value)
    with pytest.raises(RuntimeError, match="else"), answered(TrainingSpec()):
        raise RuntimeError("something else")


@pytest.mark.parametrize(
    ("module", "arguments", "line"),
    [
        ("torch", ["--backend", "torch"], "pip install 'unitrain[torch]'"),
        ("keras", ["--backend", "keras"], "pip install 'unitrain[tensorflow]'"),
        ("tensorboard", ["--set", "tracking=[tensorboard]"], "pip install 'unitrain[tracking]'"),
    ],
)
def test_a_missing_package_is_answered_with_the_line_that_installs_it(folder, module, arguments, line):
    program = f"import sys; sys.modules[{module!r}] = None; from unitrain.cli.main import main; main()"
    command = [sys.executable, "-c", program, "fit", "iris.yaml", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120, check=False)
    said(done, 2, line)


def test_output_that_nobody_reads_ends_the_run_quietly_and_it_goes_on(folder):
    command = f"{sys.executable} -m unitrain fit iris.yaml --out run 2>errors | head -n 2; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), timeout=120)
    assert done.stdout.startswith("iris: ")
    assert Path("errors").read_text() == ""
    assert done.returncode == 1
    fit("iris.yaml", out="whole")
    resume("run")
    assert differences(Path("whole"), Path("run")) == []
