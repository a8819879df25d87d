"""Series: windows against loops, scaling against the rows of the training span, parts that share no row, errors."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_workshop import Workshop

from unitrain.data.load import apply_stored
from unitrain.data.prepared import Prepared
from unitrain.data.preprocess import Preprocessing
from unitrain.data.sources import series
from unitrain.spec.data import DataSpec
from unitrain.spec.errors import InputError

LENGTH, HORIZON, ROWS = 6, 2, 60
RNG = np.random.default_rng(3)
LOAD = np.round(50 + 20 * np.sin(np.arange(ROWS)) + RNG.normal(size=ROWS) + np.arange(ROWS), 3)
HEAT = np.round(RNG.normal(10, 3, size=ROWS), 3)


def _prepare(workshop: Workshop, inputs: Any = (LENGTH, 2), window: Any = None, **changes: Any) -> Prepared:
    days = [str(np.datetime64("2026-01-01") + row) for row in range(ROWS)]
    workshop.table("s.csv", {"day": days, "load": LOAD, "heat": HEAT})
    spec = {
        "source": {"type": "series", "file": "s.csv", "time": "day", "target": "load"},
        "window": {"length": LENGTH, "horizon": HORIZON, **(window or {})},
        "split": {"validation": 0.2, "test": 0.2},
        **changes,
    }
    return workshop.prepare(spec, inputs, task="regression")


@pytest.mark.parametrize("stride", [1, 3])
def test_samples_are_what_loops_cut_and_scaling_is_of_the_training_rows(workshop: Workshop, stride: int) -> None:
    made = _prepare(workshop, window={"stride": stride}, target_scaling="standardise")
    rows = {"train": range(36), "validation": range(36, 48), "test": range(48, 60)}
    mean, deviation = LOAD[:36].mean(), LOAD[:36].std()
    scaled = np.stack([(LOAD - mean) / deviation, (HEAT - HEAT[:36].mean()) / HEAT[:36].std()], axis=1)
    for part, span in rows.items():
        begins = range(span[0], span[-1] + 2 - LENGTH - HORIZON, stride)
        found = getattr(made, part)
        seen = np.array([[scaled[row] for row in range(begin, begin + LENGTH)] for begin in begins])
        ahead = np.array([[scaled[row, 0] for row in range(b + LENGTH, b + LENGTH + HORIZON)] for b in begins])
        np.testing.assert_allclose(found.inputs["x"], seen, atol=1e-6)
        np.testing.assert_allclose(found.targets["y"], ahead, atol=1e-6)
        assert found.rows.tolist() == [begin + LENGTH - 1 for begin in begins]
    back = made.preprocessing.invert("y", made.test.targets["y"])
    np.testing.assert_allclose(back[0], LOAD[48 + LENGTH : 48 + LENGTH + HORIZON], rtol=1e-6)


def test_no_row_stands_in_two_parts_and_a_gap_in_none(workshop: Workshop) -> None:
    """Each row is told by its value, which is its number."""
    workshop.table("count.csv", {"n": range(100)})
    made = workshop.prepare(
        {
            "source": {"type": "series", "file": "count.csv", "target": "n"},
            "window": {"length": 4, "horizon": 3},
            "split": {"validation": 0.3, "test": 0.2, "gap": 5},
            "numeric": "none",
        },
        (4, 1),
        task="regression",
    )
    used = {
        part: {int(n) for side in (split.inputs["x"], split.targets["y"]) for n in side.reshape(-1)}
        for part, split in (("train", made.train), ("validation", made.validation), ("test", made.test))
    }
    assert used == {"train": set(range(50)), "validation": set(range(55, 80)), "test": set(range(85, 100))}


def test_a_sample_is_flattened_for_a_model_that_takes_it_flat(workshop: Workshop) -> None:
    flat = _prepare(workshop, LENGTH, features={"x": ["load"]}).train.inputs["x"]
    assert flat.shape == (29, LENGTH)


def test_several_columns_are_forecast_side_by_side(workshop: Workshop) -> None:
    source = {"type": "series", "file": "s.csv", "time": "day", "target": ["heat", "load"]}
    made = _prepare(workshop, source=source)
    np.testing.assert_allclose(made.train.targets["y"][3, 1], [HEAT[3 + LENGTH + 1], LOAD[3 + LENGTH + 1]], rtol=1e-6)


def test_dropped_rows_leave_a_hole_that_no_sample_reaches_over(workshop: Workshop) -> None:
    values: list[Any] = list(range(40))
    values[20] = None
    workshop.table("hole.csv", {"n": values, "other": range(40)})
    spec = {
        "source": {"type": "series", "file": "hole.csv", "target": "n", "columns": {"other": "ignore"}},
        "window": {"length": 3, "horizon": 1},
        "split": {"validation": 0, "test": 0},
        "numeric": "none",
    }
    with pytest.raises(InputError, match=r"hole.csv:22: target 'n': a missing value"):
        workshop.prepare(spec, (3, 1), task="regression")
    made = workshop.prepare({**spec, "missing": {"target": "drop_row"}}, (3, 1), task="regression").train
    firsts = made.inputs["x"][:, 0, 0].astype(int).tolist()
    assert firsts == [*range(17), *range(21, 37)]
    assert (made.targets["y"][:, 0] == made.inputs["x"][:, 0, 0] + 3).all()


def test_the_naive_forecast_repeats_the_season_that_was_seen(workshop: Workshop) -> None:
    made = _prepare(workshop, window={"horizon": 5, "season": 3})
    for sample in (0, 7):
        last = sample + LENGTH - 1
        expected = [LOAD[last - 2], LOAD[last - 1], LOAD[last], LOAD[last - 2], LOAD[last - 1]]
        np.testing.assert_allclose(made.train.naive["y"][sample], expected, rtol=1e-6)
    errors = [abs(LOAD[row] - LOAD[row - 3]) for row in range(3, 36)]
    assert made.preprocessing.targets["y"].naive[0] == pytest.approx(math.fsum(errors) / len(errors), rel=1e-12)


def test_a_later_file_is_cut_up_to_its_end_and_scaled_as_in_training(workshop: Workshop) -> None:
    made = _prepare(workshop, window={"stride": 4})
    stored = Preprocessing.from_plain(made.preprocessing.to_plain())
    workshop.table(
        "new.csv", {"day": [f"2027-01-{day:02}" for day in range(1, 13)], "load": LOAD[:12], "heat": HEAT[:12]}
    )
    ahead = apply_stored(stored, "new.csv", workshop.folder).data
    assert ahead.rows.tolist() == [7, 11]
    assert not ahead.targets
    np.testing.assert_allclose(
        ahead.inputs["x"][-1, :, 0], (LOAD[6:12] - LOAD[:36].mean()) / LOAD[:36].std(), atol=1e-6
    )
    whole = apply_stored(stored, "new.csv", workshop.folder, targets="needed").data
    assert whole.rows.tolist() == [5, 9]
    np.testing.assert_allclose(whole.targets["y"][1], LOAD[10:12], rtol=1e-6)
    workshop.table(
        "back.csv", {"day": [f"2027-01-{day:02}" for day in range(12, 0, -1)], "load": LOAD[:12], "heat": HEAT[:12]}
    )
    with pytest.raises(InputError, match="the file begins with the latest: reverse it"):
        apply_stored(stored, "back.csv", workshop.folder)


def test_a_limit_keeps_the_latest_samples(workshop: Workshop) -> None:
    made = _prepare(workshop, window={"stride": 2}, limit=5).train
    assert len(made) == 5
    assert made.rows[-1] == 35 - HORIZON


def test_parquet_and_files_of_their_own_for_the_parts(workshop: Workshop) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    times = np.datetime64("2026-01-01T00") + np.arange(30) * np.timedelta64(1, "h")
    for name in ("a", "b", "c"):
        table = pa.table({"at": pa.array(times.astype("datetime64[us]")), "n": np.arange(30.0) + ord(name)})
        parquet.write_table(table, workshop.folder / f"{name}.parquet")
    source = {"type": "series", "file": "a.parquet", "validation_file": "b.parquet", "test_file": "c.parquet"}
    made = workshop.prepare(
        {"source": {**source, "time": "at", "target": "n"}, "window": {"length": 4}, "numeric": "none"}, (4, 1)
    )
    assert [len(part) for part in (made.train, made.validation, made.test)] == [26, 26, 26]
    assert made.test.inputs["x"][0, 0, 0] == ord("c")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            ["2026-01-01", "2026-01-03", "2026-01-02"],
            r"t.csv:4: column 't': the time is not later than that of the row",
        ),
        (["2026-01-01", "2026-01-01", "2026-01-02"], "one row for each time"),
        (["2026-01-01", "tomorrow", "2026-01-02"], r"t.csv:3: column 't': not a time"),
        ([1, 2, None], r"t.csv:4: column 't': a time is missing"),
        ([3, 2, 1], "the file begins with the latest: reverse it"),
    ],
)
def test_times_must_rise(workshop: Workshop, times: list[Any], message: str) -> None:
    workshop.table("t.csv", {"t": times, "n": [1, 2, 3]})
    spec = {"source": {"type": "series", "file": "t.csv", "time": "t", "target": "n"}, "window": {"length": 1}}
    with pytest.raises(InputError) as caught:
        workshop.prepare(spec, (1, 1))
    import re

    assert re.search(message, str(caught.value)), caught.value


def test_a_blank_line_is_a_missing_value_and_not_no_row(workshop: Workshop) -> None:
    workshop.write("one.csv", "n\n1\n2\n\n4\n5\n\n")
    spec = {"source": {"type": "series", "file": "one.csv", "target": "n"}, "window": {"length": 1}}
    with pytest.raises(InputError, match=r"one.csv:4: a blank line in a file of one column"):
        workshop.prepare(spec, (1, 1))
    workshop.write("one.csv", "n\n" + "\n".join(map(str, range(20))) + "\n\n\n")
    assert len(workshop.prepare(spec, (1, 1), task="regression").train) == 13


def test_missing_times_are_said(workshop: Workshop) -> None:
    hours = [hour for hour in range(40) if hour != 17]
    workshop.table("t.csv", {"t": [f"2026-01-{1 + h // 24:02}T{h % 24:02}:00Z" for h in hours], "n": hours})
    spec = {"source": {"type": "series", "file": "t.csv", "time": "t", "target": "n"}, "window": {"length": 1}}
    notes = workshop.prepare(spec, (1, 1), task="regression").report.notes
    assert any("1 steps are longer than usual, the first at" in note and "line 19" in note for note in notes), notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": {"length": 50}}, "the train part has too few rows for a sample"),
        ({"window": {"horizon": 8}}, "the validation part has too few rows"),
        ({"split": {"validation": 0.2, "test": 0.2, "gap": 12}}, "the validation part would be empty"),
        ({"source": {"type": "series", "file": "s.csv", "time": "day", "target": "laod"}}, "did you mean 'load'"),
        ({"source": {"type": "series", "file": "s.csv", "time": "date", "target": "load"}}, "no column 'date'"),
        ({"source": {"type": "series", "file": "s.csv", "target": "load"}}, "`time: day` in the source"),
    ],
)
def test_mistakes_are_answered(workshop: Workshop, changes: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        _prepare(workshop, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"source": "sunspots"}, "a series is cut into samples"),
        ({"source": "digits", "window": {"length": 3}}, "window is for a series"),
        ({"source": "sunspots", "window": {"length": 3, "season": 4}}, "a season of 4 rows is more than the 3"),
        ({"source": "sunspots", "window": {"length": 3}, "split": {"ordered": False}}, "follow one another"),
        (
            {"source": "sunspots", "window": {"length": 3}, "split": {"stratified": True}},
            "split.stratified has no meaning",
        ),
        ({"source": "digits", "split": {"gap": 3}}, "split.gap lies between parts"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSpec.model_validate(spec)


def test_a_table_may_be_split_in_order_too(workshop: Workshop) -> None:
    workshop.table("t.csv", {"a": [row * 1.5 for row in range(20)], "y": [row % 2 for row in range(20)]})
    spec = {"source": {"type": "table", "file": "t.csv", "target": "y"}, "split": {"ordered": True, "gap": 1}}
    made = workshop.prepare(spec, 1)
    assert made.train.rows.tolist() == list(range(14))
    assert made.validation is not None
    assert made.validation.rows.tolist() == [15, 16]
    assert made.test is not None
    assert made.test.rows.tolist() == [18, 19]


def test_sunspots_are_those_of_the_observatory(workshop: Workshop) -> None:
    """309 years; 1957 had the most, 190.2 (SILSO, Royal Observatory of Belgium, version 1)."""
    pytest.importorskip("statsmodels")
    spec = {"source": "sunspots", "window": {"length": 11, "season": 11}, "split": {"validation": 0, "test": 0}}
    made = workshop.prepare({**spec, "numeric": "none"}, (11, 1), task="regression").train
    values = np.concatenate([made.inputs["x"][0, :, 0], made.targets["y"][:, 0]])
    assert len(values) == 309
    assert 1700 + int(values.argmax()) == 1957
    assert values.max() == np.float32(190.2)


def _package(folder: Path, name: str, rows: dict[str, str]) -> None:
    place = folder / name / "datasets/data/ItalyPowerDemand"
    place.mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    for part, text in rows.items():
        (place / f"ItalyPowerDemand_{part}.ts").write_text("@problemName x\n@data\n" + text, encoding="utf-8")


def test_italy_power_is_read_from_a_package_that_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(start: float, label: str) -> str:
        return ",".join(str(start + hour) for hour in range(24)) + f":{label}\n"

    _package(tmp_path, "sktime", {"TRAIN": row(0.5, "2") + row(1.5, "1"), "TEST": row(7.5, "1")})
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    importlib.invalidate_caches()
    parts = series.read_italy_power()
    assert parts["train"].features["demand"][:, 0].tolist() == [0.5, 1.5]
    assert parts["train"].targets["season"].tolist() == [1, 0]
    assert parts["train"].classes["season"][0] == "October to March"
    assert parts["test"].features["demand"][0].tolist() == [7.5 + hour for hour in range(24)]
    _package(tmp_path, "aeon", {"TRAIN": "1,2,x:1\n", "TEST": row(7.5, "1")})
    importlib.invalidate_caches()
    with pytest.raises(InputError, match=r"TRAIN.ts:3: not a row of numbers"):
        series.read_italy_power()


def test_a_package_that_is_not_there_is_answered_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for read, command in ((series.read_sunspots, "statsmodels"), (series.read_italy_power, "aeon")):
        with pytest.raises(InputError, match=f"pip install --no-deps {command}"):
            read()
