"""`unitrain runs`: what is listed, what two runs differ in, what is removed and what is not."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from survival.runs import RECIPE
from survival.sources import dig

from unitrain.cli.main import main
from unitrain.report.text_chart import text_chart
from unitrain.spec.errors import InputError
from unitrain.train.fit import fit, resume
from unitrain.train.lock import locked


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "iris.yaml").write_text(RECIPE.replace("epochs: 12", "epochs: 3"))
    fit(folder / "iris.yaml", out=folder / "runs" / "one")
    fit(folder / "iris.yaml", out=folder / "runs" / "two", overrides=["optimizer.lr=0.1", "training.max_steps=5"])
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch) -> Path:
    shutil.copytree(made / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["runs", *arguments])
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_states_backends_values_and_times_are_listed(folder, capsys):
    (folder / "runs" / "two" / "result.json").unlink()
    (folder / "runs" / "torn").mkdir()
    (folder / "runs" / "torn" / "recipe.yaml").write_text("[")
    (folder / "runs" / "notes").mkdir()
    code, out, _ = run(capsys, "--json")
    listed = {Path(line["path"]).name: line for line in json.loads(out)}
    assert code == 0
    assert {name: line["state"] for name, line in listed.items()} == {
        "torn": "unreadable",
        "one": "finished",
        "two": "broken off",
    }
    history = [json.loads(line) for line in (folder / "runs" / "one" / "metrics.jsonl").read_text().splitlines()]
    assert listed["one"]["value"] == min(line["validation"]["loss"] for line in history)
    assert (listed["one"]["epoch"], listed["one"]["epochs"], listed["one"]["backend"]) == (3, 3, "numpy")
    with locked(folder / "runs" / "one"):
        _, out, _ = run(capsys, "list", "runs")
    assert "running" in next(line for line in out.splitlines() if line.startswith("runs/one"))


def test_differing_settings_and_curves_are_shown(folder, capsys):
    code, out, _ = run(capsys, "compare", "runs/one", "runs/two", "--html", "page.html")
    assert code == 0
    lines = out.splitlines()
    fields = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("optimizer", "training."))}
    assert fields == {"optimizer.lr": ["0.02", "0.1"], "training.max_steps": ["-", "5"]}
    assert "validation loss" in lines
    # Two runs of one backend: neither it nor the epochs planned stand among the results.
    results = lines[next(n for n, line in enumerate(lines) if line.startswith("results")) :]
    assert not any(line.startswith(("backend", "device", "epochs")) for line in results)
    page = (folder / "page.html").read_text()
    assert page.count("<svg") == 6  # loss, accuracy and perplexity, of training and of validation
    assert "optimizer.lr" in page
    _, out, _ = run(capsys, "compare", "runs/one", "runs/two", "--json")
    curves = json.loads(out)["curves"]["training loss"]
    assert [len(curve) for curve in curves.values()] == [3, 2]


def test_a_chart_puts_values_where_they_belong():
    lines = text_chart("loss", {"a": [(1, 4.0), (2, 0.0)], "b": [(1, 4.0), (2, 2.0)]})
    assert lines[0] == "loss"
    assert lines[1] == f"{'4':>10} |*"
    assert lines[12] == f"{'0':>10} |" + " " * 63 + "A"
    assert sum("B" in line for line in lines) == 1


def test_named_runs_are_removed_after_asking(folder, capsys):
    code, _, err = run(capsys, "clean", "runs/one")
    assert (code, (folder / "runs" / "one").is_dir()) == (2, True)
    assert "--yes" in err
    assert run(capsys, "clean", "runs/one", "--checkpoints", "--yes")[0] == 0
    assert not (folder / "runs" / "one" / "checkpoints").exists()
    assert (folder / "runs" / "one" / "weights.safetensors").is_file()
    assert run(capsys, "clean", "runs/one", "--yes")[0] == 0
    assert sorted(entry.name for entry in (folder / "runs").iterdir()) == ["two"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["clean", "runs", "--yes"], "not a run"),
        (["clean", "runs/own", "--yes"], "thesis.txt"),
        (["clean", "runs/link", "--yes"], "symbolic link"),
        (["clean", "--yes"], "name the runs"),
        (["clena", "runs/one"], "did you mean 'clean'?"),
        (["compare", "runs/one"], "name two runs"),
        (["compare", "runs/one", "runs/tow"], "did you mean 'two'?"),
        (["list", "nowhere"], "no such folder"),
        (["list", "--yes"], "belongs to"),
    ],
)
def test_mistakes_remove_nothing(folder, capsys, arguments, expected):
    shutil.copytree(folder / "runs" / "one", folder / "runs" / "own")
    (folder / "runs" / "own" / "thesis.txt").write_text("mine")
    (folder / "runs" / "link").symlink_to("one")
    before = sorted(folder.rglob("*"))
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert expected in err
    assert sorted(folder.rglob("*")) == before


def test_a_run_with_folders_a_thousand_deep_goes_on_and_is_removed(folder, capsys):
    """The library's own walks call themselves for each, and fail."""
    place = folder / "runs" / "two" / "tensorboard"
    place.mkdir()
    dig(place, 1100, "events")
    outside = folder / "outside"
    outside.write_text("mine")
    place = folder / "runs" / "two"
    assert resume(place, overrides=["training.max_steps=6"]).end.updates == 6
    (place / "tensorboard" / "link").symlink_to(outside)
    with pytest.raises(InputError, match="symbolic link"):
        resume(place)
    code, out, _ = run(capsys, "clean", "runs/two", "--yes")
    assert (code, place.exists(), outside.read_text()) == (0, False, "mine")
    assert "are free again" in out


def test_a_run_with_folders_too_deep_for_the_system_is_said(folder, capsys):
    place = folder / "runs" / "two" / "tensorboard"
    place.mkdir()
    dig(place, 2500, "events")
    try:
        code, _, err = run(capsys, "clean", "runs/two", "--yes")
        assert code == 2
        assert "the folder cannot be read: File name too long" in err
        assert (folder / "runs" / "two" / "weights.safetensors").is_file()
    finally:
        subprocess.run(["rm", "-rf", place], check=True)  # the library's own way fails


def test_a_run_in_use_is_not_removed(folder, capsys):
    with locked(folder / "runs" / "one"):
        code, _, err = run(capsys, "clean", "runs/one", "--yes")
    assert code == 2
    assert "in use" in err
