"""A series from the command line: a model that can be right is, beside a baseline that is measured by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from unitrain.cli.main import app
from unitrain.spec.errors import InputError

SEASON, TRAINED = 4, 60
# y[t] = y[t - 4] + 1: a linear model of the last four rows is exact, and the naive forecast is wrong by 1.
VALUES = np.tile([3.0, 8.0, 1.0, 6.0], 25) + np.repeat(np.arange(25.0), SEASON)

RECIPE = """
name: steps
model:
  inputs: {window: {shape: [4, 1]}}
  layers:
    - {type: flatten, name: flat}
    - {type: dense, name: output, units: 2}
data:
  source: {type: series, file: steps.csv, target: y}
  window: {length: 4, horizon: 2, season: 4}
  split: {validation: 0.2, test: 0.2}
  target_scaling: standardise
loss: mse
optimizer: {type: sgd, lr: 0.1}
metrics: [mase, mape, smape]
training: {epochs: 300, batch_size: 64}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    (folder / "steps.csv").write_text("y\n" + "\n".join(map(str, VALUES)) + "\n", encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    shown = CliRunner().invoke(app, ["fit", str(folder / "recipe.yaml"), "--out", str(folder / "run")])
    assert shown.exit_code == 0, shown.output
    assert "test, seasonal naive: loss" in shown.output
    return folder / "run"


def test_the_naive_forecast_stands_beside_the_model(run: Path) -> None:
    """Test rows 80 to 99: the naive forecast is wrong by 1 in each, and the training span's error is 1 too."""
    result = json.loads((run / "result.json").read_text())
    naive, own = result["baseline"]["test"], result["test"]
    assert naive["mase"] == pytest.approx(1.0, rel=1e-6)
    assert naive["loss"] == pytest.approx(1.0 / VALUES[:TRAINED].var(), rel=1e-6)
    # 15 samples, each forecasts the two rows behind the four it sees.
    ahead = np.array([VALUES[80 + sample + 4 : 80 + sample + 6] for sample in range(15)])
    assert naive["mape"] == pytest.approx((1.0 / ahead).mean(), rel=1e-5)
    assert naive["smape"] == pytest.approx((2.0 / (2 * ahead - 1)).mean(), rel=1e-5)
    assert own["mase"] < 0.5
    assert "seasonal naive" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("backend", ["numpy", "torch", "keras", "onnx"])
def test_every_backend_measures_and_forecasts_the_same(run: Path, backend: str) -> None:
    shown = CliRunner().invoke(app, ["evaluate", str(run), "--backend", backend, "--json"])
    assert shown.exit_code == 0, shown.output
    values = json.loads(shown.output)["values"]
    result = json.loads((run / "result.json").read_text())
    assert values["mase"] == pytest.approx(result["test"]["mase"], rel=1e-4)
    assert values["seasonal_naive"]["mape"] == pytest.approx(result["baseline"]["test"]["mape"], rel=1e-9)
    out = run / f"{backend}.csv"
    shown = CliRunner().invoke(
        app, ["predict", str(run), str(run.parent / "steps.csv"), "--out", str(out), "--backend", backend]
    )
    assert shown.exit_code == 0, shown.output
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert [int(row["row"]) for row in rows] == list(range(3, 100))
    # The last forecast is of rows 100 and 101, which no file has: what stood there a season before, and one more.
    last = [float(rows[-1][f"prediction.{step}"]) for step in (1, 2)]
    assert last == pytest.approx([VALUES[96] + 1, VALUES[97] + 1], abs=1.5)


def test_what_an_onnx_model_cannot_do_is_said(run: Path) -> None:
    shown = CliRunner().invoke(app, ["export", str(run), "--to", "onnx", "--with-preprocessing"])
    assert isinstance(shown.exception, InputError)
    assert "cut from its rows" in str(shown.exception)


def test_mase_of_other_data_is_refused_with_its_line(tmp_path: Path) -> None:
    text = RECIPE.replace("{type: series, file: steps.csv, target: y}", "diabetes").replace(
        "  window: {length: 4, horizon: 2, season: 4}\n", ""
    )
    text = text.replace("shape: [4, 1]", "shape: [10]").replace("units: 2", "units: 1")
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    shown = CliRunner().invoke(app, ["fit", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")])
    assert isinstance(shown.exception, InputError)
    assert "recipe.yaml:14: metrics[0]: mase is of a series" in str(shown.exception)


def test_yes_or_no_ahead_is_named_by_column_and_row(tmp_path: Path) -> None:
    """Both columns repeat every four rows, so that the rows behind the last are known."""
    rain, wind = [1, 0, 0, 1], [0, 1, 1, 1]
    rows = "\n".join(f"{r},{w}" for r, w in zip(25 * rain, 25 * wind, strict=True))
    (tmp_path / "steps.csv").write_text(f"rain,wind\n{rows}\n", encoding="utf-8")
    recipe = (
        RECIPE.replace("shape: [4, 1]", "shape: [4, 2]")
        .replace(
            "{type: dense, name: output, units: 2}", "{type: dense, units: 4}\n    - {type: reshape, shape: [2, 2]}"
        )
        .replace("target: y}", "target: [rain, wind]}")
        .replace("  target_scaling: standardise\n", "")
        .replace("loss: mse", "loss: binary_cross_entropy")
        .replace("lr: 0.1", "lr: 2.0")
        .replace("[mase, mape, smape]", "[accuracy]")
    )
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    for command in (["fit", "recipe.yaml", "--out", "run"], ["predict", "run", "steps.csv", "--out", "ahead.csv"]):
        paths = [str(tmp_path / word) if "." in word or word == "run" else word for word in command]
        shown = CliRunner().invoke(app, paths)
        assert shown.exit_code == 0, shown.output
    with (tmp_path / "ahead.csv").open(encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    ahead = {"rain.1": rain[0], "wind.1": wind[0], "rain.2": rain[1], "wind.2": wind[1]}
    assert {name: int(last[f"prediction.{name}"]) for name in ahead} == ahead
    for name, label in ahead.items():
        assert abs(float(last[f"probability.{name}"]) - label) < 0.1
