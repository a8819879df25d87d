"""`unitrain bench` as a user types it: tables, JSON, page, comparison, and mistakes. No time is asserted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unitrain.backends import load_backend
from unitrain.backends.toolkit import Call, load_toolkit
from unitrain.cli.main import main
from unitrain.spec.errors import InputError

Run = Callable[..., tuple[int, str, str]]

MODEL = """\
name: tiny
inputs: {features: {shape: [6]}}
layers:
  - {type: dense, name: hidden, units: 8, activation: tanh}
  - {type: dense, name: out, units: 2}
"""
TWO = ("--backends", "numpy,torch", "--threads", "1", "--rounds", "5")


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    (tmp_path / "tiny.yaml").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    # The command sets these for libraries that are loaded later.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["bench", *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(caught.value.code or 0), out, err

    return call


def test_operations_end_to_end(run, tmp_path):
    code, out, err = run("ops", "--size", "16", *TWO, "--json", "a.json", "--html", "a.html", "--seed", "3")
    assert (code, err) == (0, "")
    assert all(len(line) <= 100 for line in out.splitlines())
    assert "matmul 16" in out
    assert "1 thread each: numpy, torch" in out
    assert "page: a.html" in out
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["parts"] == ["ops"]
    assert report["seed"] == 3
    assert report["threads"] == {"numpy": 1, "torch": 1}
    assert {"unitrain", "python", "numpy", "torch"} == set(report["versions"])
    assert report["machine"]["processor"]
    assert [case["name"] for case in report["cases"]][:3] == ["matmul 16", "batched matmul", "add"]
    for case in report["cases"]:
        assert [row["contender"] for row in case["rows"]] == ["numpy", "torch"]
        assert case["band"] >= 1.0
        for row in case["rows"]:
            assert 0.0 < row["fastest"] <= row["seconds"]["value"]
            assert row["seconds"]["low"] <= row["seconds"]["value"] <= row["seconds"]["high"]
            assert row["first_seconds"] > 0.0
            assert row["error"] < 1e-5
            assert row["why"]
    page = (tmp_path / "a.html").read_text()
    assert "<svg" in page
    assert "Roofline" in page

    code, out, _ = run("compare", "a.json", "a.json")
    assert code == 0
    assert "faster in 0 of" in out
    assert "geometric mean of second / first: 1.00" in out
    code, out, _ = run("compare", "a.json", "a.json", "--json", "-")
    assert {row["ratio"] for row in json.loads(out)["rows"]} == {1.0}


def test_a_model_of_ones_own_through_every_part_with_a_model(run):
    code, out, err = run(
        "gradients,training", "inference", "--models", "tiny.yaml", "--quick", "--backends", "numpy,torch,onnx",
        "--threads", "1", "--json", "-",
    )  # fmt: skip
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["parts"] == ["gradients", "training", "inference"]
    done = {(case["part"], case["name"]): [row["contender"] for row in case["rows"]] for case in report["cases"]}
    left = " ".join(note for note in report["notes"] if "no time was left" in note)
    for key, sides in {
        ("gradients", "model tiny"): ["numpy", "torch"],
        ("training", "tiny"): ["numpy", "torch"],
        ("inference", "tiny batch 1"): ["numpy", "torch eager", "onnx"],
        ("inference", "tiny batch 128"): ["numpy", "torch eager", "onnx"],
    }.items():
        assert key[1] in left or done[key] == sides


def test_a_wrong_answer_fails(run, monkeypatch):
    """A fault planted in torch's sum: told, not timed, exit code 1."""
    toolkit = load_toolkit("torch")
    right = type(toolkit).operation

    def wrong(self: Any, name: str, operands: Any, device: str) -> Call | None:
        call = right(self, name, operands, device)
        return Call(lambda: 1.001 * call.run(), call.read) if name == "sum" and call else call

    monkeypatch.setattr(type(toolkit), "operation", wrong)
    code, out, err = run("ops", "--size", "16", *TWO)
    assert code == 1
    assert "ops, sum, torch: wrong: off by 1.0e-03 of its size, 2e-05 allowed; not timed" in err
    assert "wrong: off by" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("opps",), "did you mean 'ops'?"),
        (("ops", "trainin"), "did you mean 'training'?"),
        (("ops", "--devices", "gpu"), "unknown device 'gpu'"),
        (("ops", "--devices", "cudda"), "did you mean 'cuda'?"),
        (("ops", "--devices", "cpu:3"), "unknown device 'cpu:3'"),
        (("ops", "--devices", "cuda:17", "--backends", "torch"), "no backend finds a device 'cuda:17'"),
        (("ops", "--backends", "pytorch"), "did you mean 'torch'?"),
        (("training", "--models", "resnet"), "did you mean 'resnet20'?"),
        (("training", "--models", "none.yaml"), "no such file"),
        (("ops", "--size", "0"), "--size is out of range"),
        (("ops", "--size", "1000000"), "--size is out of range"),
        (("ops", "--threads", "0"), "--threads is out of range"),
        (("ops", "--rounds", "2"), "--rounds is out of range"),
        (("ops", "--html", "nowhere/a.html"), "the folder does not exist"),
        (("ops", "--json", "nowhere/a.json"), "the folder does not exist"),
        (("ops", "--json", "."), "this is a folder"),
        (("compare",), "compare takes two files"),
        (("compare", "a.json"), "compare takes two files"),
        (("compare", "a.json", "b.json", "c.json"), "compare takes two files"),
        (("compare", "a.json", "b.json"), "a.json: no such file"),
        (("compare", "tiny.yaml", "tiny.yaml"), "this is not JSON"),
        (("compare", "a.json", "b.json", "--quick"), "--quick does not go with compare"),
        (("ops", "--size", "many"), "--size"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_mistakes_are_explained(run, arguments, said):
    code, out, err = run(*arguments)
    assert code == 2
    assert said in err
    assert not out


def test_what_is_not_installed_is_left_out_with_a_note(run, monkeypatch):
    def load(name: str) -> Any:
        if name == "torch":
            raise InputError("the backend 'torch' needs torch, which is not installed", hint="pip install it")
        return load_backend(name)

    monkeypatch.setattr("unitrain.bench.sides.load_backend", load)
    code, out, _ = run("ops", "--size", "16", "--backends", "numpy,torch", "--threads", "1", "--rounds", "5")
    assert code == 0
    assert (
        "note: torch is left out: the backend 'torch' needs torch, which is not installed; pip install it"
        in " ".join(out.split())
    )
    code, _, err = run("ops", "--backends", "torch")
    assert code == 2
    assert "no backend that was named is installed" in err
