"""A trained run used with onnxruntime, and training refused, as a user types them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from unitrain.cli.main import main

RECIPE = """\
name: points
model:
  inputs: {features: {shape: [3]}}
  layers:
    - {type: dense, name: hidden, units: 6, activation: gelu}
    - {type: batch_norm}
    - {type: dense, name: kind, units: 2}
data: {source: {type: table, file: points.csv, target: kind}}
loss: cross_entropy
optimizer: {type: adam, lr: 0.01}
metrics: [accuracy]
training: {epochs: 3, batch_size: 16}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    points = np.random.default_rng(0).normal(size=(80, 3))
    with (tmp_path / "points.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["a", "b", "c", "kind"])
        writer.writerows([*map(str, row), "up" if row.sum() > 0 else "down"] for row in points)
    (tmp_path / "points.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_a_run_is_measured_and_used_with_onnxruntime(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "fit", "points.yaml", "--out", "run")[0] == 0
    values = {}
    for backend in ("numpy", "onnx"):
        code, out, err = run(capsys, "evaluate", "run", "--backend", backend, "--json")
        assert (code, err) == (0, "")
        values[backend] = json.loads(out)["values"]
        name = f"{backend}.csv"
        assert run(capsys, "predict", "run", "points.csv", "--out", name, "--backend", backend)[0] == 0
    assert values["onnx"]["loss"] == pytest.approx(values["numpy"]["loss"], rel=1e-5)
    assert values["onnx"]["accuracy"] == values["numpy"]["accuracy"]
    numpy, onnx = (list(csv.DictReader((folder / f"{name}.csv").open())) for name in ("numpy", "onnx"))
    assert [row["prediction"] for row in onnx] == [row["prediction"] for row in numpy]
    np.testing.assert_allclose(
        [float(row["probability"]) for row in onnx], [float(row["probability"]) for row in numpy], rtol=1e-5
    )


@pytest.mark.parametrize("arguments", [["points.yaml"], ["points.yaml", "--dry-run"]], ids=" ".join)
def test_training_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, _, err = run(capsys, "fit", *arguments, "--backend", "onnx")
    assert code == 2
    assert "the backend 'onnx' runs inference only: it cannot train" in err
    assert "numpy, keras, torch" in err
    assert "Traceback" not in err
    assert not (folder / "runs").exists()


def test_going_on_with_a_run_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "fit", "points.yaml", "--out", "run")[0] == 0
    code, _, err = run(capsys, "fit", "--resume", "run", "--epochs", "5", "--backend", "onnx")
    assert code == 2
    assert "runs inference only" in err
