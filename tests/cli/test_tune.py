"""`unitrain tune`: the table, what is kept, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unitrain.cli.main import main

RECIPE = """
model: {inputs: {x: {shape: [5]}}, layers: [{type: dense, name: y, units: 3}]}
data: {source: {type: npz, file: d.npz, inputs: {x: x}, targets: {y: y}}}
loss: cross_entropy
optimizer: {type: adam}
training: {epochs: 3, batch_size: 8}
execution: {seconds: 0.05}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("unitrain.backends.numpy.candidates.allowed_threads", lambda: 2)
    monkeypatch.setenv("UNITRAIN_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=generator.normal(size=(40, 5)), y=generator.integers(0, 3, 40))
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out + err


def test_all_forms_are_shown_and_kept(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "tune", str(recipe), "--backend", "numpy")
    assert code == 0
    assert all(name in said for name in ("shards", "whole", "one-thread"))
    # 28 training samples (70 %) in batches of 8 are 4 steps an epoch.
    assert "is taken for a run of 12 steps" in said
    assert len(list((recipe.parent / "cache" / "tuning").glob("*.json"))) == 1
    assert "forgot 1 choice in" in run(capsys, "tune", "--clear")[1]
    assert not list((recipe.parent / "cache" / "tuning").glob("*.json"))


def test_json(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "tune", str(recipe), "--json")[1])
    assert {trial["candidate"] for trial in found["trials"]} == {"shards", "whole", "one-thread"}
    assert found["steps"] == 12
    assert all(trial["step_seconds"] > 0 for trial in found["trials"])


def test_a_fit_takes_what_was_found(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "tune", str(recipe))
    out = recipe.parent / "run"
    code, said = run(capsys, "fit", str(recipe), "--set", "execution.mode=tuned", "--out", str(out))
    assert code == 0
    assert "as an earlier run found" in said


def test_nothing_named_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "tune")
    assert code == 2
    assert "name a recipe to tune, or --clear" in said
