"""The frame of the command line, and the verbs that need no training, as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from unitrain import __version__
from unitrain.cli import check as check_module
from unitrain.cli import doctor as doctor_module
from unitrain.cli.main import INTERRUPTED, OUR_BUG, Verbs, main

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(ROOT)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"unitrain {__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_overview_names_every_verb(run: Run, arguments: list[str]) -> None:
    code, out, _ = run(*arguments)
    assert code == 0
    for name, verb in Verbs.verbs.items():
        assert f"  {name} " in out
        assert verb.help in out


@pytest.mark.parametrize("verb", Verbs.verbs)
def test_help_of_every_verb_has_examples(run: Run, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert "Examples:" in out
    assert f"  unitrain {verb} " in out.replace("doctor\n", "doctor ")


def test_a_bug_of_ours_is_told_from_wrong_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: Path) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(check_module, "inspect_file", broken)
    code, _, err = run("check", "models/cnn.yaml")
    assert code == OUR_BUG == 70
    assert "has a bug: ZeroDivisionError: division by zero" in err
    assert "command: unitrain check models/cnn.yaml" in err
    assert "Traceback" not in err
    monkeypatch.setenv("UNITRAIN_TRACEBACK", "1")
    assert "Traceback" in run("check", "models/cnn.yaml")[2]


def test_ctrl_c_is_quiet(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(file: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check_module, "inspect_file", stopped)
    code, out, err = run("check", "models/cnn.yaml")
    assert (code, out, err.strip()) == (INTERRUPTED, "", "")


def test_check_says_what_a_model_is(run: Run) -> None:
    code, out, err = run("check", "models/lenet5.yaml")
    assert (code, err) == (0, "")
    assert out.startswith("models/lenet5.yaml: model 'lenet5'\n")
    assert "12, with 61,706 parameters" in out
    assert "image [batch, 28, 28, 1]" in out
    assert "logits [batch, 10]" in out


def test_check_says_what_a_recipe_is(run: Run) -> None:
    code, out, _ = run("check", "recipes/digits-cnn.yaml")
    assert code == 0
    assert "recipe 'digits-cnn'" in out
    for part in ("digits", "cross_entropy of logits", "adam"):
        assert part in out


def test_check_looks_at_every_file(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("inputs: {x: {shape: [4]}}\nlayers: [{type: relo}]\n")
    code, out, err = run("check", str(bad), "models/mlp.yaml", "nosuch.yaml")
    assert code == 2
    assert "model 'mlp'" in out
    assert "did you mean 'relu'?" in err
    assert "nosuch.yaml: no such file" in err
    assert err.endswith("2 of 3 files are wrong\n")


def test_check_json(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("inputs: {x: {shape: [4]}}\nlayers: [{type: dense, unit: 3}]\n")
    code, out, err = run("check", "models/lenet5.yaml", str(bad), "--json")
    assert (code, err) == (2, "")
    good, wrong = json.loads(out)
    assert good["ok"] is True
    assert (good["kind"], good["parameters"], good["macs"]) == ("model", 61_706, 416_520)
    assert good["outputs"] == {"logits": [10]}
    assert wrong["ok"] is False
    assert wrong["problems"][0]["line"] == 2
    assert wrong["problems"][0]["field"] == ["layers", 0, "unit"]
    assert wrong["problems"][0]["hint"] == "did you mean 'units'?"


def test_summary_table(run: Run) -> None:
    code, out, _ = run("summary", "models/lenet5.yaml", "--set", "classes=7")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["fc2"] == ["fc2", "(dense)", "[batch,", "84]", "10,164", "10,080"]
    assert rows["logits"] == ["logits", "(dense)", "[batch,", "7]", "595", "588"]
    assert rows["total"] == ["total", "61,451", "416,268"]
    assert "61,451 trainable, 0 running statistics" in out
    assert f"{61_451 * 4:,} bytes" in out


@pytest.mark.parametrize("options", [[], ["--depth", "1"], ["--batch", "100000"]])
def test_summary_fits_100_columns(run: Run, options: list[str]) -> None:
    _, out, _ = run("summary", "models/resnet20.yaml", *options)
    assert max(len(line) for line in out.splitlines()) <= 100
    assert "\x1b" not in out


def test_summary_of_branches_names_what_they_read(run: Run) -> None:
    _, out, _ = run("summary", "models/resnet20.yaml")
    lines = [line.strip() for line in out.splitlines()]
    place = next(index for index, line in enumerate(lines) if line.startswith("stage1.0.add (add)"))
    assert lines[place + 1 : place + 3] == ["reads stage1.0.second.norm", "reads stem_relu"]


def test_summary_json(run: Run) -> None:
    plain = json.loads(run("summary", "models/lenet5.yaml", "--json")[1])
    assert plain["inputs"] == {"image": [None, 28, 28, 1]}
    assert plain["macs"] == 416_520
    batch = json.loads(run("summary", "models/lenet5.yaml", "--json", "--batch", "32")[1])
    assert batch["inputs"] == {"image": [32, 28, 28, 1]}
    assert batch["macs"] == sum(row["macs"] for row in batch["rows"]) == 32 * 416_520
    assert batch["parameters"] == plain["parameters"] == 61_706
    assert batch["weight_bytes"] == 4 * 61_706


def test_summary_of_a_recipe_shows_its_model(run: Run) -> None:
    code, out, _ = run("summary", "recipes/fashion-mnist-lenet.yaml", "--set", "classes=7")
    assert code == 0
    assert "logits [batch, 7]" in out


@pytest.mark.parametrize("kind", ["model", "recipe"])
def test_schema(run: Run, tmp_path: Path, kind: str) -> None:
    code, out, _ = run("schema", kind)
    assert code == 0
    Draft202012Validator.check_schema(json.loads(out))
    file = tmp_path / "schema.json"
    code, said, _ = run("schema", kind, "--out", str(file))
    assert (code, said) == (0, f"wrote {file}\n")
    assert file.read_text() == out


@pytest.fixture
def no_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer for the backends, whose import takes many seconds."""
    monkeypatch.setattr(doctor_module, "_devices", lambda backend: "cpu")


@pytest.mark.usefixtures("no_frameworks")
def test_doctor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    import numpy as np

    version = doctor_module._version
    monkeypatch.setattr(doctor_module, "_version", lambda name: None if name == "torch" else version(name))
    code, out, _ = run("doctor", "--json")
    assert code == 0
    found: dict[str, dict[str, Any]] = json.loads(out)
    assert found["system"]["python"] == platform.python_version()
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"]["torch"] == "missing: pip install 'unitrain[torch]'"
    assert found["devices"] == {"numpy": "cpu", "keras": "cpu", "torch": "cpu", "onnx": "cpu"}
    code, out, _ = run("doctor")
    assert code == 0
    assert "missing: pip install 'unitrain[torch]'" in out


def test_doctor_asks_a_backend_in_a_process_of_its_own() -> None:
    assert doctor_module._devices("numpy") == "cpu"


def test_doctor_outlives_a_broken_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "_ASK_DEVICES", "raise ImportError('libcudnn.so.9 is missing')")
    assert doctor_module._devices("torch") == "cannot be used: ImportError: libcudnn.so.9 is missing"
    monkeypatch.setattr(doctor_module, "_ASK_DEVICES", "import os; os.abort()")
    assert doctor_module._devices("torch").startswith("cannot be used")
    monkeypatch.setattr(doctor_module, "_ASK_DEVICES", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor_module, "_SECONDS", 0.2)
    assert doctor_module._devices("torch") == "does not answer within 0.2 s"


def test_too_little_memory_is_no_bug(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(file: Path) -> None:
        raise MemoryError("Unable to allocate 4.00 TiB")

    monkeypatch.setattr(check_module, "inspect_file", hungry)
    code, _, err = run("check", "models/cnn.yaml")
    assert code == 1
    assert "not enough memory: Unable to allocate 4.00 TiB" in err


@pytest.mark.usefixtures("no_frameworks")
def test_doctor_outlives_a_broken_numpy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    # None in sys.modules makes the import fail.
    monkeypatch.setitem(sys.modules, "numpy", None)
    code, out, _ = run("doctor", "--json")
    assert code == 0
    assert json.loads(out)["threads"]["BLAS"].startswith("unknown: import of numpy halted")
