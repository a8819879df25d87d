"""Runs on many series: what is said of them is what loops over the file's numbers give, in any scaling."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from unitrain.cli.main import main
from unitrain.spec.errors import InputError
from unitrain.train.fit import fit
from unitrain.train.inference import TrainedRun, write_predictions

LENGTH, HORIZON, SEASON = 6, 3, 4
RECIPE = """
name: many
model:
  inputs: {x: {shape: [6]}}
  layers: [{type: dense, name: y, units: 3, kernel_initializer: zeros}]
data:
  source: {type: series, file: many.csv, series: id, time: t, target: n, scaling: each}
  window: {length: 6, horizon: 3, season: 4}
  split: {validation: 0.25, test: 0.25}
  target_scaling: standardise
loss: mae
optimizer: {type: sgd, lr: 0.1}
metrics: [mase, smape, mape]
training: {epochs: 1, batch_size: 8, keep_best: null}
"""
RNG = np.random.default_rng(2)
# The last never changes while it trains: MASE has no unit for it.
SERIES = {
    "small": np.round(1 + RNG.random(60), 4),
    "large": np.round(1e4 + 3000 * RNG.random(48), 1),
    "still": np.array([5.0] * 20 + list(np.round(RNG.random(20) + 5, 4))),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("many")
    rows = [(t, name, value) for name, values in SERIES.items() for t, value in enumerate(values)]
    text = "".join(f"{t},{name},{value}\n" for t, name, value in sorted(rows))
    (place / "many.csv").write_text("t,id,n\n" + text)
    (place / "many.yaml").write_text(RECIPE)
    return place


def naive_values(part: slice) -> dict[str, float]:
    """Measure the seasonal naive forecast on a part, in the numbers of the file."""
    scaled, symmetric, relative = [], [], []
    for values in SERIES.values():
        train = values[: len(values) // 2]
        unit = np.mean([abs(train[row] - train[row - SEASON]) for row in range(SEASON, len(train))])
        span = values[len(values) * part.start // 4 : len(values) * part.stop // 4]
        for begin in range(len(span) - LENGTH - HORIZON + 1):
            for step in range(HORIZON):
                true = span[begin + LENGTH + step]
                guess = span[begin + LENGTH - SEASON + step]
                symmetric.append(2 * abs(true - guess) / (abs(true) + abs(guess)))
                relative.append(abs(true - guess) / abs(true))
                if unit > 0:
                    scaled.append(abs(true - guess) / unit)
    return {name: math.fsum(of) / len(of) for name, of in [("mase", scaled), ("smape", symmetric), ("mape", relative)]}


@pytest.mark.parametrize("scaling", ["each", "together"])
def test_the_baseline_is_what_loops_over_the_file_give(folder: Path, scaling: str) -> None:
    overrides = [f"data.source.scaling={scaling}"]
    run = fit(folder / "many.yaml", out=folder / scaling, overrides=overrides).folder.path
    result = json.loads((run / "result.json").read_text())
    for part, place in (("validation", slice(2, 3)), ("test", slice(3, 4))):
        for name, value in naive_values(place).items():
            assert result["baseline"][part][name] == pytest.approx(value, rel=1e-4), (part, name)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_forecasts_are_in_the_units_of_each_series(folder: Path, backend: str) -> None:
    """A model that has not learnt says zero, which is the mean of a series' training rows."""
    run = fit(folder / "many.yaml", out=folder / f"zero-{backend}", backend=backend, overrides=["optimizer.lr=1e-30"])
    trained = TrainedRun.open(run.folder.path)
    write_predictions(folder / "p.csv", trained.predict(folder / "many.csv").columns, replace=True)
    with (folder / "p.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [*rows[0]] == ["series", "row", "prediction.1", "prediction.2", "prediction.3"]
    file = (folder / "many.csv").read_text().splitlines()[1:]
    for row in rows:
        values = SERIES[row["series"]]
        assert file[int(row["row"])].split(",")[1] == row["series"]
        assert float(row["prediction.2"]) == pytest.approx(values[: len(values) // 2].mean(), rel=1e-5)
    assert len(rows) == sum(len(values) - LENGTH + 1 for values in SERIES.values())
    count, measured = trained.evaluate(data=folder / "many.csv")
    assert count == sum(len(values) - LENGTH - HORIZON + 1 for values in SERIES.values())
    errors = [
        abs(values[begin + LENGTH + step] - train.mean()) / np.mean(np.abs(train[SEASON:] - train[:-SEASON]))
        for name, values in SERIES.items()
        if name != "still"
        for train in [values[: len(values) // 2]]
        for begin in range(len(values) - LENGTH - HORIZON + 1)
        for step in range(HORIZON)
    ]
    assert measured["mase"] == pytest.approx(math.fsum(errors) / len(errors), rel=1e-5)
    # Each by itself: what all together give is their mean, by samples; of one that never changed there is no MASE.
    _, told = trained.evaluate(data=folder / "many.csv", each_series=True)
    each = told["series"]
    assert {name: values["samples"] for name, values in each.items()} == {"small": 52, "large": 40, "still": 32}
    assert math.isnan(each["still"]["mase"])
    changing = [each[name] for name in ("small", "large")]
    mean = sum(values["mase"] * values["samples"] for values in changing) / 92
    assert mean == pytest.approx(measured["mase"], rel=1e-9)
    naive = sum(values["seasonal_naive"]["mase"] * values["samples"] for values in changing) / 92
    assert naive == pytest.approx(measured["seasonal_naive"]["mase"], rel=1e-9)


def test_each_series_is_told_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(folder / "many.yaml", out=folder / "told").folder.path
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(run), "--each-series"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert re.search(r"series +samples +forecast +loss +mase +smape +mape\n", printed), printed
    # A quarter of 60, 48 and 40 rows tests; the file begins with the large ones.
    rows = r"large +4 +model .*\n +seasonal naive .*\nsmall +7 +model .*\n +seasonal naive .*\nstill +2 +model .* nan "
    assert re.search(rows, printed), printed


def test_mase_of_a_series_that_training_did_not_have_is_refused(folder: Path) -> None:
    overrides = ["data.source.scaling=together"]
    trained = TrainedRun.open(fit(folder / "many.yaml", out=folder / "other", overrides=overrides).folder.path)
    (folder / "new.csv").write_text("t,id,n\n" + "".join(f"{t},new,{t}\n" for t in range(12)))
    assert len(trained.predict(folder / "new.csv").columns["prediction.1"]) == 7
    with pytest.raises(InputError, match="did not have this series"):
        trained.evaluate(data=folder / "new.csv")
