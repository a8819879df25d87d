"""A case from building to judging: what is wrong is not timed, what is missing is left out, what fails is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unitrain.backends import load_backend
from unitrain.backends.toolkit import Call, load_toolkit
from unitrain.bench.compare import compare, compare_cases
from unitrain.bench.gradients import LAYERS
from unitrain.bench.gradients import experiments as gradient_experiments
from unitrain.bench.inference import experiments as inference_experiments
from unitrain.bench.models import read_models
from unitrain.bench.results import Case, Ceilings, Report, Row, Work, read_report
from unitrain.bench.runner import Conditions, Entry, Experiment, Right, error_of, judge, run_experiment
from unitrain.bench.session import Options, bench
from unitrain.bench.sides import Side, choose_sides
from unitrain.bench.training import experiments as training_experiments
from unitrain.bench.why import why
from unitrain.spec.errors import InputError
from unitrain.timing import TWIN, Interval

FAST = Conditions(rounds=5, sample_seconds=0.0, case_seconds=0.0)
NUMPY = Side(load_backend("numpy"), load_toolkit("numpy"), "cpu")


def giving(value: object) -> Call:
    return Call(lambda: value, lambda result: {"result": np.asarray(result, dtype=np.float64)})


def experiment(*entries: Entry) -> Experiment:
    return Experiment("ops", "one", "", Work(1.0, 4.0), entries, lambda: Right({"result": np.ones(4)}, 1e-6))


def test_wrong_answers_are_not_timed_and_the_first_right_one_is_the_baseline():
    def broken() -> Call:
        raise RuntimeError("no\n such thing")

    def refused() -> Call:
        raise InputError("it cannot")

    case = run_experiment(
        experiment(
            Entry("none", NUMPY, lambda: None),
            Entry("wrong", NUMPY, lambda: giving([1, 1, 1, 1.00001])),
            Entry("nan", NUMPY, lambda: giving([1, 1, 1, np.nan])),
            Entry("shape", NUMPY, lambda: giving([1, 1, 1])),
            Entry("broken", NUMPY, broken),
            Entry("refused", NUMPY, refused),
            Entry("right", NUMPY, lambda: giving([1, 1, 1, 1])),
            Entry("near", NUMPY, lambda: giving([1, 1, 1, 1 + 1e-9])),
        ),
        FAST,
    )
    rows = {row.contender: row for row in case.rows}
    assert list(rows) == ["wrong", "nan", "shape", "broken", "refused", "right", "near"]
    assert all(rows[name].failure.startswith("wrong: off by") for name in ("wrong", "nan", "shape"))
    assert rows["broken"].failure == "RuntimeError: no such thing"
    assert rows["refused"].failure == "it cannot"
    # What a side says it cannot do is no fault of the check.
    assert [name for name, row in rows.items() if row.wrong] == ["wrong", "nan", "shape", "broken"]
    assert all((row.seconds is None) == bool(row.failure) for row in case.rows)
    assert case.baseline == "right"
    assert rows["right"].claim == "baseline"
    assert rows["near"].claim in ("faster", "slower", "same")
    assert case.band >= 1.0
    assert case.rounds == 5


def test_nobody_right_is_a_case_without_times():
    case = run_experiment(experiment(Entry("wrong", NUMPY, lambda: giving([2, 2, 2, 2]))), FAST)
    assert (case.baseline, case.rounds, case.twin) == ("", 0, None)


def test_the_same_call_is_built_anew_for_the_twin():
    built = []

    def build() -> Call:
        built.append(giving([1, 1, 1, 1]))
        return built[-1]

    run_experiment(experiment(Entry("right", NUMPY, build)), FAST)
    assert len(built) == 2


def test_errors_by_hand():
    right = {"a": np.array([3.0, 4.0]), "b": np.array([0.0, 0.0])}
    assert error_of({"a": np.array([3.0, 4.0]), "b": np.zeros(2)}, right) == 0.0
    assert error_of({"a": np.array([3.0, 9.0]), "b": np.zeros(2)}, right) == pytest.approx(1.0)  # 5 over 5
    assert error_of({"a": np.array([3.0, 4.0])}, right) == 0.0  # zeros may be left out
    assert error_of({"b": np.zeros(2)}, right) == np.inf
    assert error_of({"a": np.array([3.0, 4.0]), "b": np.array([0.0, 1e-30])}, right) == np.inf
    assert error_of({"a": np.array([[3.0, 4.0]])}, right) == np.inf
    assert np.isnan(error_of({"a": np.array([np.nan, 4.0])}, right))


def test_judging_by_hand():
    case = Case("ops", "one", "", Work(1.0, 1.0), baseline="numpy")
    rows = {name: Row(name, name, "cpu") for name in ("numpy", "torch")}
    base = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    judge(case, rows, {"numpy": base, "torch": 3 * base, TWIN: 1.25 * base}, {"numpy": 7, "torch": 2}, FAST)
    assert case.twin == Interval(1.25, 1.25, 1.25)
    assert case.band == 1.25
    assert rows["torch"].ratio == Interval(3.0, 3.0, 3.0)
    assert (rows["torch"].claim, rows["torch"].calls, rows["torch"].fastest) == ("slower", 2, 3.0)
    assert rows["torch"].seconds.value == 12.0


CEILINGS = Ceilings(flops=100e9, bandwidth=10e9, empty={"torch": 1e-6})


@pytest.mark.parametrize(
    ("seconds", "work", "said"),
    [
        (2e-6, Work(1e3, 1e3), "launch-bound: 50 % of it is what an operation costs on one element"),
        (25e-6, Work(1e3, 1e3, 10), "launch-bound: 40 % of it is what 10 operations cost on one element"),
        (0.5e-6, Work(1e3, 1e3), "launch-bound: 100 % of it is what an operation costs on one element"),
        (0.02, Work(1e9, 1e6), "compute-bound: 50 % of the 100 GFLOP/s peak"),
        (0.1, Work(1e9, 1e6), "below the arithmetic roof: 10 % of the 100 GFLOP/s peak"),
        (0.02, Work(1e6, 1e8), "memory-bound: 50 % of the 10.0 GB/s of main memory"),
        (0.1, Work(1e6, 1e8), "below the memory roof: 10 % of the 10.0 GB/s of main memory"),
        (0.005, Work(1e6, 1e8), "cache-bound: 2.0 times the 10.0 GB/s of main memory"),
        (1.0, Work(1e6, 1e8), "far below its roofs: at them arithmetic and memory would take 1 % of it"),
    ],
)
def test_why_by_hand(seconds, work, said):
    assert why(seconds, work, "torch", CEILINGS) == said


def test_every_layer_and_model_agrees_on_every_framework():
    """Gradients by all frameworks of every layer that is timed, and of a model, against NumPy in float64."""
    sides = choose_sides(["numpy", "keras", "torch"], ["cpu"], 1).by_device["cpu"]
    found = gradient_experiments(sides, "cpu", FAST, read_models(["lenet5"], 0), quick=True)
    cases = [run_experiment(one, FAST) for one in found]
    assert [case.name for case in cases] == [
        "layer dense",
        "layer conv2d",
        "layer max_pool2d",
        "layer batch_norm",
        "model lenet5",
    ]
    for case in cases:
        assert [row.contender for row in case.rows] == ["numpy", "keras", "torch"]
        assert all(row.error < 1e-4 for row in case.rows), case.name
        assert not any(row.failure for row in case.rows)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("dense", "conv2d")])
@pytest.mark.parametrize("backend", ["keras", "torch"])
def test_gradients_of_the_other_layers_are_right(name, backend):
    side = choose_sides([backend], ["cpu"], 1).by_device["cpu"]
    (one,) = (one for one in gradient_experiments(side, "cpu", FAST, []) if one.name == f"layer {name}")
    call = one.entries[0].build()
    assert error_of(call.read(call.run()), one.expected().arrays) < 1e-5


def test_training_and_inference_agree_on_every_framework():
    sides = choose_sides([], ["cpu"], 1).by_device["cpu"]
    models = read_models(["mlp"], 0)
    (training,) = (run_experiment(one, FAST) for one in training_experiments(sides, "cpu", models, quick=True))
    assert [row.contender for row in training.rows] == ["numpy", "keras", "torch"]
    assert all(row.error < 1e-5 for row in training.rows)
    assert training.work.samples == 4 * 128
    for one in inference_experiments(sides, "cpu", models, quick=True):
        case = run_experiment(one, FAST)
        assert [row.contender for row in case.rows] == [
            "numpy",
            "keras function",
            "keras call",
            "torch eager",
            "onnx",
        ]
        assert all(row.error < 1e-5 for row in case.rows)


def test_one_case_of_each_part_is_done_when_the_time_is_over():
    sides = choose_sides(["numpy"], ["cpu"], 1)
    late = Conditions(rounds=5, sample_seconds=0.0, deadline=float("-inf"))
    told: list[str] = []
    options = Options(("ops", "inference"), read_models(["mlp"], 0), 16, quick=True)
    found = bench(sides, options, late, lambda case: told.append(case.name))
    assert told == [case.name for case in found.cases] == ["matmul 16", "mlp batch 1"]
    assert found.cases[0].rounds == 5
    assert [note for note in found.notes if note.startswith("inference")] == [
        "inference: no time was left for mlp batch 128"
    ]


def report(**times: float) -> Report:
    """Make a report by hand: contender to its seconds, all certain within a tenth."""
    rows = [
        Row(name, name, "cpu", Interval(value, 0.9 * value, 1.1 * value), claim="same") for name, value in times.items()
    ]
    case = Case("ops", "add", "float32", Work(1.0, 1.0), rounds=5, baseline="numpy", band=1.2, rows=rows)
    machine = {"processor": "X", "processors": 2}
    return Report(["ops"], machine, {"numpy": "2"}, {"numpy": 2}, 0, {"cpu": CEILINGS}, [case])


def written(folder: Path, name: str, of: Report) -> Path:
    path = folder / name
    path.write_text(json.dumps(of.to_plain(), allow_nan=False))
    return path


def test_json_holds_all_that_the_report_does(tmp_path):
    plain = read_report(written(tmp_path, "a.json", report(numpy=1.0)))
    assert plain == report(numpy=1.0).to_plain()
    assert plain["cases"][0]["rows"][0]["seconds"] == {"value": 1.0, "low": 0.9, "high": 1.1}
    assert plain["ceilings"]["cpu"]["flops"] == 100e9


def test_comparison_by_hand(tmp_path):
    first = report(numpy=1.0, torch=1.0, keras=1.0, gone=1.0)
    second = report(numpy=2.0, torch=0.5, keras=1.3, new=1.0)
    second.versions = {"numpy": "3"}
    second.threads = {"numpy": 4}
    found = compare(written(tmp_path, "a.json", first), written(tmp_path, "b.json", second))
    rows = {row["side"]: row for row in found["rows"]}
    assert list(rows) == ["numpy", "torch", "keras"]
    assert [rows[name]["claim"] for name in rows] == ["slower", "faster", "same"]
    assert rows["numpy"]["ratio"] == 2.0
    # The least and the largest that the two intervals leave: 1.8 / 1.1 and 2.2 / 0.9.
    assert (rows["numpy"]["low"], rows["numpy"]["high"]) == pytest.approx((1.8 / 1.1, 2.2 / 0.9))
    assert found["differences"] == ["numpy 2 and 3", "numpy threads 2 and 4"]
    assert found["summary"][0].startswith("the second is faster in 1 of 3, slower in 1; in 1 ")
    assert "1.09" in found["summary"][1]  # (2 * 0.5 * 1.3)^(1/3)


def test_both_noise_floors_must_be_exceeded():
    first, second = report(numpy=1.0).to_plain(), report(numpy=2.0).to_plain()
    assert compare_cases(first, second)[0]["claim"] == "slower"
    first["cases"][0]["band"] = 1.7
    assert compare_cases(first, second)[0]["claim"] == "same"
    first["cases"][0]["band"], second["cases"][0]["band"] = 1.0, 1.7
    assert compare_cases(first, second)[0]["claim"] == "same"


def test_what_has_other_shapes_is_not_compared(tmp_path):
    other = report(numpy=1.0)
    other.cases[0].about = "float64"
    with pytest.raises(InputError, match="no case in common"):
        compare(written(tmp_path, "a.json", report(numpy=1.0)), written(tmp_path, "b.json", other))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "this is not JSON"),
        ("[]", "this is no benchmark"),
        ('{"cases": []}', "this is no benchmark"),
        ('{"format": 99, "cases": []}', "another format"),
        ('{"format": 1, "cases": [{"part": "ops"}]}', "damaged"),
        ('{"format": 1, "cases": [3]}', "damaged"),
        ('{"format": 1, "cases": 3}', "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_report(path)


def test_binary_and_missing_files_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not even text"):
        read_report(tmp_path / "a.json")
    with pytest.raises(InputError, match="no such file"):
        read_report(tmp_path / "b.json")
