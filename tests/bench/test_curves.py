"""Cost curves: their points, the memory of fresh processes, and the charts."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from unitrain.backends import load_backend
from unitrain.backends.toolkit import load_toolkit
from unitrain.bench import curves, fresh, streamed, training
from unitrain.bench.models import find_model, layer_model, read_models, resized
from unitrain.bench.runner import Conditions, run_experiment
from unitrain.bench.sides import Side
from unitrain.cli.main import main
from unitrain.report.bench_curves import _memory, _milliseconds, _throughput
from unitrain.report.bench_curves import curves as draw
from unitrain.report.bench_figures import looks

NUMPY, TORCH, ONNX = (Side(load_backend(name), load_toolkit(name), "cpu") for name in ("numpy", "torch", "onnx"))


def test_points_are_over_batch_and_width():
    models = read_models(["mlp", "lenet5"], 0)
    found = curves.experiments([NUMPY, TORCH, ONNX], "cpu", models)
    assert len({one.name for one in found}) == len(found)
    assert all(one.part == "curves" and one.point is not None for one in found)

    def at(curve, over):
        return [one.point.at for one in found if (one.point.curve, one.point.over) == (curve, over)]

    assert at("mlp inference", "batch") == [2**power for power in range(9)]
    assert at("mlp training", "batch") == [8, 32, 128, 512]
    assert at("mlp training", "width") == [32, 128, 512, 2048]
    assert at("lenet5 training", "width") == []
    assert at("mlp streamed training", "data size, MiB") == [8, 32, 128, 512]
    for one in found:
        names = [entry.name for entry in one.entries]
        assert names == (["numpy", "torch", "onnx"] if "inference" in one.name else ["numpy", "torch"])
        if one.point.over == "batch":
            assert one.work.samples == one.point.at * one.point.steps
        assert (one.memory is None) == ("inference" in one.name)


def test_quickly_there_are_fewer_and_no_fresh_processes():
    models = read_models(["mlp"], 0)
    found = curves.experiments([NUMPY, ONNX], "cpu", models, quick=True)
    assert [one.point.at for one in found] == [1, 16, 256, 8, 128]
    assert all(one.memory is None for one in found)
    assert [one.point.curve for one in curves.experiments([ONNX], "cpu", models, quick=True)] == ["mlp inference"] * 3


def test_on_a_gpu_the_allocator_tells_the_memory():
    found = curves.experiments([NUMPY], "cuda", read_models(["mlp"], 0))
    assert all(one.memory is None for one in found)


def test_widths_are_those_of_the_hidden_layers():
    wide = resized("mlp", 48, 3)
    # 784 x 48 + 48, 48 x 48 + 48, 48 x 10 + 10.
    assert wide.graph.parameter_count(trainable=True) == 785 * 48 + 49 * 48 + 49 * 10
    assert wide.seed == 3
    assert resized("cnn", 4, 0).graph.parameters["conv2.kernel"].shape == (3, 3, 4, 8)
    assert resized("resnet20", 4, 0) is None
    assert resized("mine", 4, 0) is None


def test_a_training_point_is_right_with_any_batch():
    (model,) = read_models(["mlp"], 0)
    case = run_experiment(
        training.experiment(model, [NUMPY, TORCH], "cpu", 2, batch=8),
        Conditions(rounds=5, sample_seconds=0.0, case_seconds=0.0),
    )
    assert [row.failure for row in case.rows] == ["", ""]
    assert case.work.samples == 16


def test_a_fresh_process_holds_the_data_and_the_parameters():
    wide = resized("mlp", 1024, 0)
    parameters = 4 * wide.graph.parameter_count(trainable=True)
    small = fresh.peak_bytes(wide, NUMPY, 8, 2, 1)
    if small is None:
        pytest.skip("this system does not tell the peak memory of a process")
    # Weights, gradients and two moments at least.
    assert 4 * parameters <= small <= 12 * parameters + (32 << 20)
    large = fresh.peak_bytes(wide, NUMPY, 2048, 4, 1)
    data, activations = 4 * 2048 * 4 * 784, 4 * 2048 * 4 * 1024
    assert large - small > 0.9 * data
    assert large - small < 2 * data + 3 * activations + (64 << 20)


def test_training_from_a_file_is_right_and_holds_a_part_of_it():
    (model,) = read_models(["mlp"], 0)
    file = streamed.data_file(96, 784, 0)
    assert abs(file.stat().st_size - 96 * 2**20) < 4096
    case = run_experiment(
        streamed.experiment(model, [NUMPY, TORCH], "cpu", lambda: file),
        Conditions(rounds=5, sample_seconds=0.0, case_seconds=0.0),
    )
    assert [row.failure for row in case.rows] == ["", ""]
    grown = fresh.peak_bytes(model, NUMPY, streamed.BATCH, streamed.STEPS, 1, file)
    assert grown is None or grown < 64 * 2**20


def test_what_was_made_without_a_file_has_no_fresh_process():
    assert fresh.peak_bytes(layer_model("one", {"type": "dense", "units": 2}, [4], 0), NUMPY, 8, 2, 1) is None


def test_a_process_that_breaks_off_tells_no_memory():
    (model,) = read_models(["mlp"], 0)
    nowhere = Side(NUMPY.backend, NUMPY.toolkit, "nowhere:0")
    object.__setattr__(model, "file", find_model("mlp").with_name("not-there.yaml"))
    assert fresh.peak_bytes(model, nowhere, 8, 2, 1) is None


def point(curve, over, at, steps, seconds, samples, memory=1 << 20):
    interval = None if seconds is None else {"value": seconds, "low": 0.9 * seconds, "high": 1.1 * seconds}
    return {
        "part": "curves",
        "name": f"{curve} {at}",
        "work": {"samples": samples},
        "point": {"curve": curve, "over": over, "at": at, "steps": steps},
        "rows": [{"contender": "numpy", "seconds": interval, "memory": memory}],
    }


def test_numbers_of_a_point():
    one = point("a", "batch", 8, 4, 0.2, 32)
    row = one["rows"][0]
    assert _milliseconds(one, row) == pytest.approx((50.0, 45.0, 55.0))
    assert _throughput(one, row) == pytest.approx((160.0, 32 / 0.22, 32 / 0.18))
    assert _memory(one, row) == (1.0, 1.0, 1.0)
    for nothing in (None, 0):
        assert _memory(one, {**row, "memory": nothing}) is None
    lost = point("a", "batch", 8, 4, None, 32)
    assert _milliseconds(lost, lost["rows"][0]) is None
    assert _throughput(lost, lost["rows"][0]) is None


def test_a_chart_for_each_curve_of_two_points():
    cases = [
        point("mlp training", "width", 64, 4, 0.3, 512),
        point("mlp training", "width", 32, 4, 0.2, 512),
        point("mlp inference", "batch", 1, 1, 0.1, 1, memory=None),
        point("mlp inference", "batch", 2, 1, 0.1, 2, memory=None),
        point("lonely", "batch", 2, 1, 0.1, 2),
        point("failed", "batch", 1, 1, None, 1),
        point("failed", "batch", 2, 1, None, 2),
        {"part": "ops", "name": "old", "rows": []},
    ]
    drawn = draw(cases, looks(cases))
    assert [title for title, _ in drawn] == ["mlp training over the width", "mlp inference over the batch size"]
    assert all(chart.startswith("<svg") for _, chart in drawn)
    # Three panels with memory, two without.
    panels = [len(set(re.findall(r'id="(axes_\d+)"', chart))) for _, chart in drawn]
    assert panels == [3, 2]


def test_curves_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\ninputs: {x: {shape: [6]}}\nlayers:\n  - {type: dense, name: out, units: 2}\n"
    )
    arguments = ["curves", "--models", "tiny.yaml", "--backends", "numpy,torch", "--threads", "1", "--quick"]
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments, "--json", "a.json", "--html", "a.html"])
    assert ended.value.code == 0, capsys.readouterr()
    report = json.loads((tmp_path / "a.json").read_text())
    assert [case["point"]["at"] for case in report["cases"]][:3] == [1, 16, 256]
    assert all(np.isfinite(row["seconds"]["value"]) for case in report["cases"] for row in case["rows"])
    page = (tmp_path / "a.html").read_text()
    assert "tiny inference over the batch size" in page
    assert "Cost curves" in page
    with pytest.raises(SystemExit) as ended:
        main(["bench", "compare", "a.json", "a.json"])
    assert ended.value.code == 0
