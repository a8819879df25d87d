"""`unitrain verify` as a user types it: what is printed, what the exit code is, planted faults and mistakes."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unitrain.backends import BACKENDS, load_backend
from unitrain.cli.main import main
from unitrain.cli.status import Status
from unitrain.spec.layers import BatchNorm

Run = Callable[..., tuple[int, str, str]]

MODEL = """\
name: tiny
inputs: {features: {shape: [6]}}
layers:
  - {type: dense, name: hidden, units: 8}
  - {type: batch_norm, name: norm}
  - {type: tanh}
  - {type: dense, name: out, units: 2}
"""
RECIPE = """\
name: flowers
model:
  inputs: {features: {shape: [4]}}
  layers:
    - {type: dense, name: hidden, units: 8, activation: tanh}
    - {type: dense, name: species, units: 3}
data: {source: iris}
loss: cross_entropy
optimizer: adam
metrics: [accuracy]
training: {epochs: 2, batch_size: 16}
"""
TWO = ("--backends", "numpy,torch", "--steps", "5")


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    (tmp_path / "tiny.yaml").write_text(MODEL)
    (tmp_path / "flowers.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["verify", *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(caught.value.code or 0), out, err

    return call


@pytest.fixture
def wrong_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch's batch norm have Keras's epsilon."""
    load_backend("torch").layer_types()
    from unitrain.backends.torch import registry

    make = registry.IMPLEMENTATIONS[BatchNorm]

    def faulty(layer, node, settings):
        return make(layer.model_copy(update={"epsilon": 1e-3}), node, settings)

    monkeypatch.setitem(registry.IMPLEMENTATIONS, BatchNorm, faulty)


def test_models_and_recipes_pass(run):
    code, out, err = run("tiny.yaml", "flowers.yaml", *TWO)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "tiny: numpy, torch in float32"
    heads = [line.split() for line in lines if line.startswith("layer ")]
    assert heads == [["layer", "type", "numpy", "torch"]] * 2
    for name, kind in (("hidden", "dense"), ("norm", "batch_norm"), ("optimizer", ""), ("loss of species", "")):
        assert any(line.startswith(name) and kind in line for line in lines)
    assert any(line.startswith("flowers: ") for line in lines)
    assert sum(" of the recipe's data; seed 0" in line for line in lines) == 1
    assert sum(line.startswith("torch ") and " PASS " in line for line in lines) == 2
    assert [line for line in lines if line.startswith("PASS")] == ["PASS tiny", "PASS flowers"]
    assert lines[-1] == "2 of 2 passed"
    assert "FAIL" not in out
    assert max(map(len, lines)) <= 100


def test_a_planted_fault_is_found_and_named(run, wrong_norm):
    code, out, _ = run("tiny.yaml", "flowers.yaml", *TWO)
    assert code == 1
    lines = [line.rstrip() for line in out.splitlines()]
    causes = lines[lines.index("causes") + 1 :]
    assert causes[0].startswith("  torch batch_norm at layer 'norm': ")
    assert causes[1].startswith("    ")
    table = lines[lines.index(next(line for line in lines if line.startswith("layer "))) + 2 :]
    assert table[0].split()[:2] == ["norm", "batch_norm"]
    assert table[0].endswith("FAIL")
    assert not any("numpy" in line and "FAIL" in line for line in lines)
    assert "FAIL tiny" in lines
    assert "PASS flowers" in lines
    assert lines[-1] == "1 of 2 passed; failed: tiny.yaml"
    assert max(map(len, lines)) <= 100


def test_json_holds_everything_and_nothing_else(run):
    code, out, err = run("tiny.yaml", "flowers.yaml", "--json", "--level", "forward,transfer", "--level", "step", *TWO)
    assert (code, err) == (0, "")
    first, second = map(json.loads, out.splitlines())
    assert (first["source"], first["subject"], first["passed"]) == ("tiny.yaml", "tiny", True)
    assert first["levels"] == ["forward", "step", "transfer"]
    assert first["backends"] == ["numpy", "torch"]
    assert first["devices"] == {"numpy": "cpu", "torch": "cpu"}
    assert first["layers"]["norm"] == "batch_norm"
    assert {"unitrain", "python", "numpy", "torch"} == first["versions"].keys()
    assert {finding["level"] for finding in first["findings"]} == {"forward", "step", "transfer"}
    assert {finding["backend"] for finding in first["findings"]} == {"numpy", "torch"}
    for finding in second["findings"]:
        assert finding["passed"] == (
            finding["ratio"] <= finding["bound"] and finding["max_ratio"] <= 2 * finding["bound"]
        )
    assert any(finding["part"] == "loss of species" for finding in second["findings"])


def test_json_says_why_it_failed(run, wrong_norm):
    code, out, _ = run("tiny.yaml", "--json", "--backends", "torch", "--level", "forward")
    assert code == 1
    report = json.loads(out)
    assert not report["passed"]
    (cause,) = report["causes"]
    assert (cause["backend"], cause["part"], cause["kind"], cause["level"]) == (
        "torch",
        "norm",
        "batch_norm",
        "forward",
    )
    assert cause["text"].startswith("torch batch_norm at layer 'norm': ")


def test_the_documented_fields_are_those_printed(run):
    page = (Path(__file__).parents[2] / "docs" / "verify.md").read_text(encoding="utf-8")
    _, out, _ = run("tiny.yaml", "--json", *TWO)
    report = json.loads(out)
    for field in (*report, *report["findings"][0], *report["trajectories"][0]):
        assert f"`{field}`" in page or f"`findings[].{field}`" in page, field


def test_quiet_prints_the_verdict_only(run):
    assert run("tiny.yaml", "--quiet", "--level", "forward", "--backends", "torch") == (0, "PASS tiny\n", "")


def test_all_shows_every_layer_in_order(run):
    deep = "".join(f"  - {{type: dense, name: layer{number:02}, units: 6}}\n" for number in range(20))
    Path("deep.yaml").write_text(f"inputs: {{x: {{shape: [6]}}}}\nlayers:\n{deep}")
    options = ("deep.yaml", "--backends", "torch", "--level", "forward")
    _, short, _ = run(*options)
    assert sum(line.startswith(("layer0", "layer1")) for line in short.splitlines()) == 12
    assert "and 8 more with smaller ratios; --all shows them" in short
    _, long, _ = run(*options, "--all")
    shown = [line.split()[0] for line in long.splitlines() if line.startswith(("layer0", "layer1"))]
    assert shown == [f"layer{number:02}" for number in range(20)]


def test_a_page_is_written(run):
    code, out, _ = run("tiny.yaml", "--html", "page.html", *TWO)
    assert code == 0
    assert out.splitlines()[-1] == "page: page.html"
    page = Path("page.html").read_text(encoding="utf-8")
    assert "tiny" in page
    assert "PASS" in page
    assert "<svg" in page


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tiny.yml"], ["no such file or run folder", "did you mean 'tiny.yaml'?"]),
        (["tiny.yaml", "--backends", "torhc"], ["unknown backend 'torhc'", "did you mean 'torch'?", "numpy, keras"]),
        (["tiny.yaml", "--level", "forwards"], ["unknown level 'forwards'", "did you mean 'forward'?"]),
        (["tiny.yaml", "--dtype", "float46"], ["unknown dtype 'float46'", "did you mean 'float64'?"]),
        (["tiny.yaml", "--set", "width=3", "--backends", "numpy"], ["width"]),
        (["tiny.yaml", "--device", "gpu", "--backends", "numpy"], ["no backend finds a device 'gpu'", "numpy: cpu"]),
        (["tiny.yaml", "--html", "nowhere/page.html"], ["nowhere: the folder does not exist"]),
        (["tiny.yaml", "--steps", "0"], ["--steps", "1"]),
    ],
)
def test_mistakes_are_told(run, arguments, told):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    for text in told:
        assert text in err


def test_all_mistakes_are_told_before_anything_is_verified(run):
    code, out, err = run("tiny.yaml", "a.yaml", "b.yaml", "--backends", "numpy")
    assert (code, out) == (2, "")
    assert "a.yaml: no such file" in err
    assert "b.yaml: no such file" in err


def test_a_backend_that_is_not_installed_is_left_out_unless_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "unitrain.backends.keras", None)
    monkeypatch.setitem(BACKENDS, "keras", "tensorflow")
    for name in ("torch", "onnx"):
        monkeypatch.delitem(BACKENDS, name)

    def missing(name):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    from unitrain import backends

    real = backends.importlib.import_module
    monkeypatch.setattr(
        backends.importlib, "import_module", lambda name: missing(name) if name.endswith("keras") else real(name)
    )
    code, out, _ = run("tiny.yaml", "--level", "forward")
    assert code == 0
    note = "note: keras is left out: the backend 'keras' needs tensorflow, which is not installed; pip install"
    assert note in " ".join(out.split())
    code, out, err = run("tiny.yaml", "--level", "forward", "--backends", "keras")
    assert (code, out) == (2, "")
    assert "the backend 'keras' needs tensorflow" in err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_status_line_is_for_terminals(monkeypatch, capsys):
    with Status() as status:
        status.tell("WholeModel on torch")
    assert capsys.readouterr() == ("", "")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Status() as status:
        status.about = "tiny"
        status.tell("WholeModel on torch")
    assert "tiny: whole model on torch" in terminal.getvalue()
    assert capsys.readouterr().out == ""
