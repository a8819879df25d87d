"""Many series in one file: windows, parts, scaling and naive forecasts against loops over each series by itself."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from data_workshop import Workshop

from unitrain.data.load import apply_stored
from unitrain.data.prepared import Prepared
from unitrain.data.preprocess import Preprocessing
from unitrain.spec.data import DataSpec
from unitrain.spec.errors import InputError

LENGTH, HORIZON = 4, 2
RNG = np.random.default_rng(5)
# Of other lengths and sizes; the last is too short for a sample of its later parts.
SERIES = {
    "b": np.round(1000 + 300 * RNG.normal(size=50), 2),
    "a": np.round(RNG.normal(size=40), 3),
    "c": np.round(5 + RNG.normal(size=15), 3),
}
SOURCE = {"type": "series", "file": "m.csv", "time": "day", "series": "store", "target": "sales"}


def write(workshop: Workshop, mixed: bool = True, name: str = "m.csv") -> list[tuple[int, str, float]]:
    """Write all series, mixed by day or below one another; return the rows."""
    rows = [(day, store, float(value)) for store, values in SERIES.items() for day, value in enumerate(values)]
    if mixed:
        rows.sort(key=lambda row: row[0])
    days = [str(np.datetime64("2026-01-01") + day) for day, _, _ in rows]
    stores, sales = [store for _, store, _ in rows], [value for _, _, value in rows]
    workshop.table(name, {"day": days, "store": stores, "sales": sales})
    return rows


def prepare(workshop: Workshop, inputs: Any = (LENGTH, 1), **changes: Any) -> Prepared:
    spec = {
        "source": {**SOURCE, **changes.pop("source", {})},
        "window": {"length": LENGTH, "horizon": HORIZON, **changes.pop("window", {})},
        "split": {"validation": 0.2, "test": 0.2},
        **changes,
    }
    return workshop.prepare(spec, inputs, task="regression")


def parts_of(values: np.ndarray) -> dict[str, np.ndarray]:
    first, second = round(0.6 * len(values)), round(0.8 * len(values))
    return {"train": values[:first], "validation": values[first:second], "test": values[second:]}


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("scaling", ["each", "together"])
def test_samples_are_what_loops_cut_of_each_series(workshop: Workshop, mixed: bool, stride: int, scaling: str) -> None:
    rows = write(workshop, mixed)
    made = prepare(workshop, window={"stride": stride}, target_scaling="standardise", source={"scaling": scaling})
    together = np.concatenate([parts_of(values)["train"] for values in SERIES.values()])
    for part in ("train", "validation", "test"):
        seen, ahead, names, last = [], [], [], []
        order = dict.fromkeys(store for _, store, _ in rows)
        for store in order:
            fitted = parts_of(SERIES[store])["train"] if scaling == "each" else together
            span = (parts_of(SERIES[store])[part] - fitted.mean()) / fitted.std()
            offset = {"train": 0, "validation": 0.6, "test": 0.8}[part] * len(SERIES[store])
            for begin in range(0, len(span) - LENGTH - HORIZON + 1, stride):
                seen.append(span[begin : begin + LENGTH, None])
                ahead.append(span[begin + LENGTH : begin + LENGTH + HORIZON])
                names.append(store)
                last.append(
                    next(i for i, row in enumerate(rows) if row[:2] == (round(offset) + begin + LENGTH - 1, store))
                )
        found = getattr(made, part)
        np.testing.assert_allclose(found.inputs["x"], seen, atol=2e-6)
        np.testing.assert_allclose(found.targets["y"], ahead, atol=2e-6)
        assert found.series.tolist() == names
        assert found.rows.tolist() == last
        back = made.preprocessing.invert("y", found.targets["y"], found.units["y"])
        assert rows[last[0]][1] == names[0]
        place = next(at for at, row in enumerate(rows) if row[1] == names[0] and row[0] == rows[last[0]][0] + 1)
        assert back[0, 0] == pytest.approx(rows[place][2], rel=1e-5)
    notes = made.report.notes
    assert "3 series of 15 to 50 rows" in notes
    assert "1 of 3 series are too short for a sample of the test part" in notes


def test_the_error_of_the_naive_forecast_is_that_of_each_series(workshop: Workshop) -> None:
    write(workshop)
    made = prepare(workshop, window={"season": 3}, source={"scaling": "together"})
    for store, values in SERIES.items():
        span = parts_of(values)["train"]
        errors = [abs(span[row] - span[row - 3]) for row in range(3, len(span))]
        assert made.preprocessing.targets["y"].naive_of[store][0] == pytest.approx(math.fsum(errors) / len(errors))
    first = int((made.train.series == "a").argmax())
    expected = SERIES["a"][[LENGTH - 3, LENGTH - 2]]
    np.testing.assert_allclose(made.train.naive["y"][first], expected, rtol=1e-6)


def test_numbers_that_are_not_to_be_scaled_are_not(workshop: Workshop) -> None:
    """The methods of the recipe hold: each series is scaled by them."""
    write(workshop)
    made = prepare(workshop, numeric="none")
    first = int((made.train.series == "b").argmax())
    np.testing.assert_allclose(made.train.inputs["x"][first, :, 0], SERIES["b"][:LENGTH], rtol=1e-6)
    made = prepare(workshop, numeric="min_max")
    assert (made.train.inputs["x"].min(), made.train.inputs["x"].max()) == (0.0, 1.0)
    np.testing.assert_allclose(made.train.targets["y"][first], SERIES["b"][LENGTH : LENGTH + HORIZON], rtol=1e-6)


def test_dropped_rows_leave_a_hole_in_their_series_alone(workshop: Workshop) -> None:
    values: list[Any] = [*range(20), *range(100, 120)]
    values[10] = None
    workshop.table("h.csv", {"s": ["x"] * 20 + ["y"] * 20, "n": values})
    spec = {
        "source": {"type": "series", "file": "h.csv", "series": "s", "target": "n"},
        "window": {"length": 3},
        "split": {"validation": 0, "test": 0},
        "numeric": "none",
        "missing": {"target": "drop_row"},
    }
    made = workshop.prepare(spec, (3, 1), task="regression").train
    assert made.inputs["x"][:, 0, 0].astype(int).tolist() == [*range(7), *range(11, 17), *range(100, 117)]
    assert (made.targets["y"][:, 0] == made.inputs["x"][:, 0, 0] + 3).all()


@pytest.mark.parametrize("gap", [0, 2])
def test_later_parts_may_see_the_rows_before_them_and_forecast_their_own(workshop: Workshop, gap: int) -> None:
    """Each row is told by its value: thousands for the series, ones for the row."""
    workshop.table(
        "n.csv",
        {"s": ["x"] * 20 + ["y"] * 30, "n": [*range(1000, 1020), *range(2000, 2030)], "t": [*range(20), *range(30)]},
    )
    spec = {
        "source": {"type": "series", "file": "n.csv", "series": "s", "time": "t", "target": "n"},
        "window": {"length": 5, "horizon": 2},
        "split": {"validation": 0.2, "test": 0.2, "look_back": True, "gap": gap},
        "features": {"x": ["n"]},
        "numeric": "none",
    }
    made = workshop.prepare(spec, (5, 1), task="regression")
    own = {
        "train": {*range(1000, 1012), *range(2000, 2018)},
        "validation": {*range(1012 + gap, 1016), *range(2018 + gap, 2024)},
        "test": {*range(1016 + gap, 1020), *range(2024 + gap, 2030)},
    }
    for part, rows in own.items():
        found = getattr(made, part)
        forecast = {int(n) for n in found.targets["y"].reshape(-1)}
        assert forecast == (rows - {*range(1000, 1005), *range(2000, 2005)})
        assert (found.targets["y"][:, 0] == found.inputs["x"][:, -1, 0] + 1).all()
    with pytest.raises(ValueError, match=r"split\.look_back is for a series"):
        DataSpec.model_validate({"source": "digits", "split": {"look_back": True}})


def test_several_columns_name_a_series_and_may_be_features(workshop: Workshop) -> None:
    days = list(range(30))
    workshop.table(
        "d.csv",
        {
            "store": ["1"] * 60 + ["2"] * 60,
            "item": (["x"] * 30 + ["y"] * 30) * 2,
            "day": days * 4,
            "n": [day + 10 * block for block in range(4) for day in days],
        },
    )
    source = {"type": "series", "file": "d.csv", "series": ["store", "item"], "time": "day", "target": "n"}
    spec = {
        "source": {**source, "columns": {"item": "category"}},
        "window": {"length": 3},
        "split": {"validation": 0, "test": 0},
        "numeric": "none",
    }
    made = workshop.prepare(spec, (3, 3), task="regression").train
    assert set(made.series) == {"1, x", "1, y", "2, x", "2, y"}
    assert (made.inputs["x"][:, 0, :2].argmax(axis=1) == [name.endswith("y") for name in made.series]).all()


def test_a_limit_takes_the_latest_samples_of_each_series(workshop: Workshop) -> None:
    write(workshop, mixed=False)
    made = prepare(workshop, limit=9).train
    # 25, 19 and 4 samples fit.
    assert [int((made.series == name).sum()) for name in "bac"] == [5, 3, 1]
    assert made.rows[4] == 29 - HORIZON


def test_a_later_file_is_forecast_series_by_series(workshop: Workshop) -> None:
    write(workshop)
    made = prepare(workshop, target_scaling="standardise")
    stored = Preprocessing.from_plain(made.preprocessing.to_plain())
    assert stored == made.preprocessing
    workshop.write("new.csv", "store,day,sales\n" + "".join(f"{s},{d},{d}\n" for d in range(6) for s in "ab"))
    ahead = apply_stored(stored, "new.csv", workshop.folder).data
    assert ahead.series.tolist() == ["a"] * 3 + ["b"] * 3
    assert ahead.rows.tolist() == [6, 8, 10, 7, 9, 11]
    for name, sample in (("a", 0), ("b", 3)):
        train = parts_of(SERIES[name])["train"]
        np.testing.assert_allclose(
            ahead.inputs["x"][sample, :, 0], (np.arange(4) - train.mean()) / train.std(), atol=1e-5
        )
        zero = stored.invert("y", np.zeros((6, HORIZON)), ahead.units["y"])
        np.testing.assert_allclose(zero[sample], train.mean(), rtol=1e-6, atol=1e-7)
    workshop.write("other.csv", "store,day,sales\n" + "".join(f"z,{d},{d}\n" for d in range(8)))
    with pytest.raises(InputError, match=r"other.csv:2: a series that training did not have") as caught:
        apply_stored(stored, "other.csv", workshop.folder)
    assert "scaling: together" in str(caught.value)
    together = prepare(workshop, target_scaling="standardise", source={"scaling": "together"}).preprocessing
    assert len(apply_stored(together, "other.csv", workshop.folder).data) == 5


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ("1,a,1\n1,b,1\n2,a,1\n2,a,1\n", {}, r"m.csv:5: column 'day': the time is not later .* in its series"),
        ("1,a,1\n5,b,1\n3,a,1\n4,b,1\n", {}, r"m.csv:5: .*\n.*5 and then 4\n.*(sort|reverse)"),
        ("1,a,1\n2,,1\n", {}, r"m.csv:3: column 'store': the row is of no series"),
        ("1,a,1\n,a,1\n", {}, r"m.csv:3: column 'day': a time is missing"),
        ("1,a,1\n2,a,x\n", {"columns": {"sales": "numeric"}}, r"m.csv:3: column 'sales': not a number"),
        ("1,a,1\n2,a,1\n", {"series": "stor"}, r"no column 'stor'(.|\n)*did you mean 'store'"),
        ("1,a,1\n1,b,1\n", {"series": None, "columns": {"store": "ignore"}}, r"many series: `series: COLUMN`"),
        ("1,a,1\n2,a,1\n1,b,1\n", {}, r"the train part has too few rows for a sample(.|\n)*in the longest of 2 series"),
    ],
)
def test_mistakes_are_answered(workshop: Workshop, rows: str, changes: dict[str, Any], message: str) -> None:
    workshop.write("m.csv", "day,store,sales\n" + rows)
    with pytest.raises(InputError) as caught:
        prepare(workshop, source=changes, split={"validation": 0, "test": 0})
    assert re.search(message, str(caught.value)), caught.value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"series": "day"}, "column 'day' is stated as series and as time"),
        ({"series": ["store", "sales"]}, "column 'sales' is stated as series and as target"),
        ({"series": ["store", "store"]}, "stands twice"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSpec.model_validate({"source": {**SOURCE, **changes}, "window": {"length": 3}})
