"""Precision on the command line: the option, what a run says of it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unitrain.cli.main import main
from unitrain.cli.run_lines import show_end
from unitrain.train.events import RunEnd

RECIPE = str(Path(__file__).parents[2] / "recipes" / "digits-cnn.yaml")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_option_is_a_setting(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    short = ["--backend", "torch", "--epochs", "1", "--precision", "mixed_float16", "--out", str(out)]
    code, said, _ = run(capsys, "fit", RECIPE, *short)
    assert code == 0
    assert said.splitlines()[0].endswith("on torch (cpu) in mixed_float16")
    assert "precision: mixed_float16" in (out / "recipe.yaml").read_text()
    result = json.loads((out / "result.json").read_text())
    assert (result["skipped"], result["loss_scale"]) == (0, 2.0**16)
    code, said, _ = run(capsys, "evaluate", str(out), "--part", "validation")
    assert code == 0
    file = tmp_path / "model.safetensors"
    code, said, _ = run(capsys, "export", str(out), "--to", "safetensors", "--out", str(file))
    assert code == 0
    assert file.is_file()


@pytest.mark.parametrize(
    ("backend", "precision", "words"),
    [
        ("numpy", "mixed_bfloat16", ["training.precision", "numpy", "float32, float64", "torch and keras"]),
        ("torch", "float16", ["training.precision", "mixed_float16"]),
        ("torch", "mixed_float61", ["training.precision", "did you mean 'mixed_float16'?"]),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], backend: str, precision: str, words: list[str]
) -> None:
    code, _, said = run(capsys, "fit", RECIPE, "--backend", backend, "--precision", precision)
    assert code == 2
    for word in words:
        assert word in said


def test_skipped_updates_are_told() -> None:
    end = RunEnd("finished", "trained for 2 epochs", 2, 40, 1.0, None)
    assert "skipped" not in show_end(end)
    one = RunEnd("finished", "trained for 2 epochs", 2, 40, 1.0, None, skipped=1, loss_scale=2.0**15)
    assert "1 update was skipped" in show_end(one)
    assert "32,768" in show_end(one)
    assert "1,200 updates were skipped" in show_end(
        RunEnd("finished", "", 2, 40, 1.0, None, skipped=1200, loss_scale=2.0)
    )
