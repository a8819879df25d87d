"""The scripts that time peers: rows by pattern, tables between marks, and what of the GPU's checks a CPU can do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from unitrain.backends.torch.program import TorchProgram

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "scripts" / "peers"
READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    monkeypatch.syspath_prepend(str(PEERS))


def test_a_pattern_is_a_group_or_a_part_of_a_name():
    from run import choose

    def rows(*patterns):
        return [f"{one.what} / {peer}" for one in choose(patterns) for peer in one.peers]

    every = rows()
    assert len(every) == len(set(every)) == 38
    assert rows("onnx") == [row for row in every if row.startswith("ONNX")]
    assert rows("cnn / KERAS fit") == ["keras cnn / Keras fit"]
    # A group's name is the group, and not every row that has the word.
    assert all(row.startswith("torch ") for row in rows("torch"))
    assert rows("torch", "skorch") == [*rows("torch"), "torch tiny / skorch"]
    assert rows("start") == rows("memory") == []


def test_a_pattern_that_names_nothing_is_an_error():
    done = subprocess.run(
        [sys.executable, PEERS / "run.py", "--list", "--only", "bogus"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "'bogus'" in done.stderr
    assert "Traceback" not in done.stderr


def test_rows_say_whether_their_bound_is_met():
    from comparison import Row

    assert Row("a", "b", 1e-3, 2e-3, 0.5, 0.4, 0.5).markdown().endswith("| 0.50 | 0.40 | 0.50 | met |")
    assert Row("a", "b", 1e-3, 2e-3, 0.51, 0.4, 0.5).markdown().endswith("**missed** |")
    assert Row("a", "b", 1e-3, 2e-3, 9.0, 9.0, None).markdown().endswith("| - | information |")


def test_rows_compare_within_the_rounds():
    from comparison import Comparison, Peer, compare

    calls = []
    peers = {"slow": Peer(lambda: lambda: calls.append("slow"), 1.0)}
    (row,) = compare(Comparison("torch", "ours", lambda: lambda: calls.append("ours"), peers, steps=2), 3)
    assert (row.what, row.theirs, row.bound) == ("ours", "slow", 1.0)
    assert {"ours", "slow"} == set(calls)
    assert row.ours_seconds > 0


def test_all_rounds_are_done_however_often_all_is_built():
    from comparison import Comparison, Peer, compare

    built, calls = [], []

    def make():
        built.append(len(calls))
        return lambda: calls.append(time.sleep(0.03))

    list(compare(Comparison("torch", "ours", make, {"theirs": Peer(make)}), 5, starts=3))
    # Each time both are run once, twice to see how long they take, and once in each of 2, 2 and 1 rounds.
    assert built == [0, 0, 10, 10, 20, 20]
    assert len(calls) == 3 * 2 * 3 + 2 * 5


def _pid_in(folder, exits=False):
    """What a process of its own builds: a run that leaves its process' number."""

    def run():
        if exits:
            os._exit(3)
        (folder / str(os.getpid())).touch()

    return run


def test_a_contender_has_a_process_of_its_own(tmp_path):
    from apart import apart

    with apart(partial(_pid_in, tmp_path)) as first, apart(partial(_pid_in, tmp_path)) as second:
        for run in (first, second, first):
            run()
    pids = {int(path.name) for path in tmp_path.iterdir()}
    assert len(pids) == 2
    assert os.getpid() not in pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_process_that_ends_is_told(tmp_path):
    from apart import apart

    with apart(partial(_pid_in, tmp_path, exits=True)) as run:
        for _ in range(2):  # as it ends, and when it is over
            with pytest.raises(RuntimeError, match="ended with 3"):
                run()


def test_a_table_goes_between_its_marks(tmp_path):
    from comparison import write_between

    page = tmp_path / "page.md"
    page.write_text("a\n<!-- gpu: start -->\nold\n<!-- gpu: end -->\nb\n")
    write_between("new", "gpu", page)
    assert page.read_text() == "a\n<!-- gpu: start -->\nnew\n<!-- gpu: end -->\nb\n"
    with pytest.raises(ValueError, match="peers"):
        write_between("new", "peers", page)


@pytest.mark.parametrize("marks", ["gpu", "peers"])
def test_the_page_has_the_marks(marks):
    from comparison import PAGE

    text = PAGE.read_text(encoding="utf-8")
    assert text.count(f"<!-- {marks}: start -->") == text.count(f"<!-- {marks}: end -->") == 1


def test_without_a_gpu_the_script_says_so(tmp_path):
    # A path on which nvidia-smi is not, whatever this machine has.
    for name in ("bash", "dirname", "grep", "env"):
        found = next(Path(folder) / name for folder in os.environ["PATH"].split(":") if (Path(folder) / name).exists())
        (tmp_path / name).symlink_to(found)
    done = subprocess.run(
        [ROOT / "scripts" / "bench-gpu"], capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 2
    assert "needs an NVIDIA GPU" in done.stderr


def test_the_gpu_script_says_why_it_cannot_run(monkeypatch):
    from gpu import refusal

    assert "no CUDA device" in refusal("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no CUDA device" in refusal("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert refusal("cuda") is None
    assert "there is no 'cuda:1'" in refusal("cuda:1")


def test_a_section_that_breaks_off_does_not_take_the_others(monkeypatch, capsys):
    import gpu

    def broken(options):
        raise RuntimeError("no such\nkernel")

    monkeypatch.setattr(gpu, "SECTIONS", {"a": broken, "b": lambda options: gpu.Found(["fine"])})
    lines, passed = gpu.run_sections(["a", "b"], gpu.Options())
    assert not passed
    assert lines == ["", "**a broke off**: RuntimeError: no such kernel", "", "fine"]
    assert gpu.run_sections(["b"], gpu.Options())[1]


def test_two_runs_have_the_same_bits_on_the_cpu():
    from gpu_rightness import same_bits

    assert same_bits("mlp", "cpu", steps=3)


@contextmanager
def no_reading():
    """Let everything raise by which Python reads a tensor; `cpu` of a tensor that is there would wait on a GPU."""

    def refuse(self, *arguments, **options):
        raise RuntimeError("read")

    with ExitStack() as stack:
        for name in READS:
            stack.enter_context(patch.object(torch.Tensor, name, refuse))
        yield


def test_memory_is_that_of_the_whole_process():
    import memory

    found = memory.peak_bytes("theirs", "mlp", 1)
    samples, (features,) = memory.MODELS["mlp"]
    # The images as an array and as a tensor.
    assert found > 2 * 4 * samples * features


@pytest.mark.parametrize("name", ["tiny", "lenet"])
def test_steps_of_an_accelerator_read_nothing(name, monkeypatch):
    """The way of a block on a GPU, taken on the CPU."""
    from gpu_rightness import steps_under

    before = TorchProgram.__init__

    def like_a_gpu(self, *arguments, **options):
        before(self, *arguments, **options)
        self._reads = False

    monkeypatch.setattr(TorchProgram, "__init__", like_a_gpu)
    steps_under(name, "cpu", no_reading)


def test_a_step_that_reads_is_found():
    from gpu_rightness import steps_under

    with pytest.raises(RuntimeError, match="read"):
        steps_under("tiny", "cpu", no_reading)
    assert torch.ones(()).item() == 1.0


def test_torch_is_told_to_raise_and_then_told_to_stop(monkeypatch):
    from gpu_rightness import no_waiting

    modes = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with pytest.raises(ValueError, match="out"), no_waiting():
        raise ValueError("out")
    assert modes == ["error", 0]


@pytest.mark.parametrize("name", ["tiny", "mlp", "lenet", "cnn", "resnet20", "lstm", "transformer"])
def test_both_sides_train_the_same_parameters(name):
    from ours import make_graph
    from torch_models import make_model

    theirs = make_model(name)
    # torch's LSTM has a second bias, which is added to the first.
    extra = sum(bias.numel() for label, bias in theirs.named_parameters() if label.endswith("bias_hh_l0"))
    assert make_graph(name).parameter_count(trainable=True) == sum(p.numel() for p in theirs.parameters()) - extra


def test_loops_on_the_cpu_are_those_of_the_gpu():
    from ours import make_data, make_graph, make_trainer
    from torch_loops import make_epoch

    data = make_data(make_graph("tiny"), 32)
    make_epoch("tiny", *data, 8, device="cpu")()
    assert make_trainer(make_graph("tiny"), *data, "torch", 8, device="cpu").run().reason == "finished"
