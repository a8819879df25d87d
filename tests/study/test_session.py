"""A study from the command line: what is measured, what it is held to, what goes into the folder."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from unitrain.cli.main import main
from unitrain.study.repeat import compare
from unitrain.train.inference import TrainedRun
from unitrain.train.session import prepare_data

NAMES = "int8,int8-tensor,int8-entropy,int8-dynamic,fp16,int8-weights,fp32-none"


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "study"
    with pytest.raises(SystemExit) as caught:
        main(["study", str(run), "--variants", NAMES, "--saturation-check", "--out", str(out)])
    assert not caught.value.code
    return out


@pytest.fixture(scope="module")
def study(folder) -> dict:
    return json.loads((folder / "study.json").read_text())


def row(study, name) -> dict:
    return next(item for item in study["rows"] if item["name"] == name)


def test_every_variant_comes_through(study):
    assert [item["name"] for item in study["rows"]] == [
        "fp32",
        "fp32-none",
        "int8",
        "int8-tensor",
        "int8-entropy",
        "int8-dynamic",
        "fp16",
        "int8-weights",
    ]
    assert [item["failure"] for item in study["rows"] if item["failure"]] == []
    assert row(study, "int8")["coverage"] == "3/3"
    assert row(study, "int8-dynamic")["coverage"] == "1/3"


def test_the_accuracy_is_that_of_the_run(study, run):
    trained = TrainedRun.open(run, backend="numpy")
    samples, values = trained.evaluate("test")
    fp32 = row(study, "fp32")
    assert study["splits"]["counts"]["test"] == samples
    assert fp32["test"]["value"]["value"] == pytest.approx(values["accuracy"])
    assert fp32["test"]["verdict"] is None
    assert row(study, "fp32-none")["test"]["agreement"] == 1.0


def test_the_file_beside_it_gives_the_accuracy_that_is_told(study, folder, run):
    trained = TrainedRun.open(run, backend="numpy")
    test = prepare_data(trained.loaded, trained.preprocessing).test
    session = onnxruntime.InferenceSession(str(folder / "int8.onnx"), providers=["CPUExecutionProvider"])
    logits = session.run(None, dict(test.inputs))[0]
    right = logits.argmax(axis=1) == test.targets["digit"]
    assert row(study, "int8")["test"]["value"]["value"] == pytest.approx(right.mean())
    digest = hashlib.sha256((folder / "int8.onnx").read_bytes()).hexdigest()
    assert row(study, "int8")["sha256"] == digest


def test_sizes_and_work_are_counted(study, folder):
    fp32 = row(study, "fp32")
    # conv1 8*8 places, 3*3*1 -> 8; conv2 3*3 places, 3*3*8 -> 32; digit 288 -> 10.
    assert fp32["size"]["macs"] == 64 * 72 + 9 * 72 * 32 + 288 * 10
    assert fp32["size"]["file"] == (folder / "fp32.onnx").stat().st_size
    assert row(study, "int8")["size"]["file"] < fp32["size"]["file"]
    assert fp32["load_seconds"] > 0
    assert fp32["cpu_seconds"] > 0


def test_static_int8_is_computed_as_on_older_cpus(study):
    checked = {item["name"]: item["saturated"] for item in study["rows"] if item["saturated"] is not None}
    assert set(checked) == {"int8", "int8-tensor", "int8-entropy"}
    # This small network has no two neighbouring weights that are both large.
    assert max(checked.values()) < 0.05
    assert row(study, "int8")["notes"][-1].startswith("int8: on CPUs without VNNI ")


def test_latency_is_told_with_its_noise(study):
    assert set(study["bands"]) == {"single stream", "offline"}
    assert all(band >= 1.0 for band in study["bands"].values())
    for item in study["rows"]:
        assert {latency["batch"] for latency in item["latency"].values()} == {1, 4}
        for latency in item["latency"].values():
            ratio = latency["ratio"]
            assert latency["p50"] > 0
            if item["name"] == "fp32":
                assert ratio is None
            else:
                assert ratio["low"] <= ratio["value"] <= ratio["high"]


def test_the_splits_are_told(study):
    counts = study["splits"]["counts"]
    assert counts["calibration"] == 64
    assert counts["calibration"] + counts["selection"] == 360
    assert len(set(study["splits"]["hashes"].values())) == 4


def test_the_csv_has_the_same_numbers(study, folder):
    with (folder / "study.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [item["name"] for item in rows] == [item["name"] for item in study["rows"]]
    assert float(rows[2]["test.value.value"]) == row(study, "int8")["test"]["value"]["value"]
    assert np.isclose(float(rows[2]["latency.offline.p50"]), row(study, "int8")["latency"]["offline"]["p50"])


def test_the_recommendation_is_one_of_the_rows(study):
    assert study["recommended"] in {item["name"] for item in study["rows"]}
    assert study["recommended"] in study["recommendation"]


def test_what_rewrites_the_graph(run, tmp_path, capsys):
    names = "sparse-80,sparse-2:4,pruned-50,pruned-50-int8,qat,mixed,numpy"
    with pytest.raises(SystemExit) as caught:
        main(["study", str(run), "--variants", names, "--out", str(tmp_path / "s"), "--json"])
    assert not caught.value.code
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    base, sparse, pattern, pruned, both, qat, small = (
        row(found, name) for name in ("fp32", "sparse-80", "sparse-2:4", "pruned-50", "pruned-50-int8", "qat", "numpy")
    )
    assert [item["failure"] for item in (sparse, pattern, pruned, both, qat, small)] == [""] * 6
    kernels = 72 + 72 * 32 + 288 * 10
    zeros = base["size"]["non_zeros"] - sparse["size"]["non_zeros"]
    assert zeros == sum(round(0.8 * size) for size in (72, 72 * 32, 2880))
    # conv1 reads one channel, no multiple of four: it stays.
    assert base["size"]["non_zeros"] - pattern["size"]["non_zeros"] == (kernels - 72) // 2
    assert sparse["notes"] == ["sparse-80: trained for 1 epoch by the recipe's own schedule"]
    assert sparse["size"]["compressed"] < 0.7 * base["size"]["compressed"]
    # 16 of 32 channels went from conv2, and from what the last layer reads; 8 of conv1 are less than a multiple.
    assert pruned["size"]["macs"] == 64 * 72 + 9 * 72 * 16 + 144 * 10
    assert pruned["size"]["macs"] == both["size"]["macs"]
    assert both["coverage"] == qat["coverage"] == "3/3"
    assert qat["test"]["value"]["value"] > 0.8
    assert small["latency"]["single stream"]["claim"] == "slower"
    assert small["size"] is None
    mixed = row(found, "mixed")
    assert (
        mixed["failure"].startswith("nothing has to be restored") or " products stay in float: " in mixed["notes"][-1]
    )
    assert len(found["sensitivity"]) == 3
    # Where standard error is no terminal, what takes long is told in lines.
    for line in (
        "  3/7  sparse-80",
        "  calibrating, minmax, 2 in all",
        "  ranking operators, 3 in all",
        "timing, offline, 5",
    ):
        assert line in shown.err
    assert shown.err.count("epoch 1/1  |  training: loss ") == 4


def test_the_float_model_teaches_what_is_pruned_where_it_is_asked_to(run, tmp_path, capsys):
    beside = ["--variants", "pruned-50,sparse-80", "--out", str(tmp_path / "s"), "--json", "--distill"]
    with pytest.raises(SystemExit) as caught:
        main(["study", str(run), *beside, "--finetune-epochs", "0"])
    assert caught.value.code == 2
    assert "a teacher teaches in fine-tuning" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["study", str(run), *beside])
    assert not caught.value.code
    found = json.loads(capsys.readouterr().out)
    for name in ("pruned-50", "sparse-80"):
        said = row(found, name)["notes"][0]
        assert said.endswith("trained for 1 epoch by the recipe's own schedule, taught by the float model")


def test_without_epochs_what_is_pruned_is_not_trained(run, tmp_path, capsys):
    names = "sparse-80,pruned-50,qat"
    with pytest.raises(SystemExit) as caught:
        main(["study", str(run), "--variants", names, "--finetune-epochs", "0", "--out", str(tmp_path / "s"), "--json"])
    assert not caught.value.code
    found = json.loads(capsys.readouterr().out)
    sparse, pruned, qat = (row(found, name) for name in names.split(","))
    assert sparse["notes"][0] == "sparse-80: not trained since, as finetune_epochs is 0"
    assert pruned["notes"][0].endswith("not trained since, as finetune_epochs is 0")
    assert qat["failure"] == "it needs training, and finetune_epochs is 0"
    # The weights that were kept are those of the run.
    trained = TrainedRun.open(run, backend="numpy")
    kernel = trained.program.weights()["digit.kernel"]
    kept = np.sort(np.abs(kernel), axis=None)[round(0.8 * kernel.size) :]
    model = onnx.load(str(tmp_path / "s" / "sparse-80.onnx"))
    written = next(
        array for array in map(onnx.numpy_helper.to_array, model.graph.initializer) if array.size == kernel.size
    )
    np.testing.assert_array_equal(np.sort(np.abs(written[written != 0])), kept.astype(np.float32))


def test_it_is_repeated_and_compared(folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["study", "--repeat", str(folder), "--out", str(tmp_path / "again")])
    assert not caught.value.code
    assert "the same samples, files, gates and quality as before" in capsys.readouterr().out
    plain = json.loads((folder / "study.json").read_text())
    plain["rows"][2]["sha256"] = "0"
    plain["splits"]["hashes"]["test"] = "0"
    differences, _ = compare(plain, json.loads((tmp_path / "again" / "study.json").read_text()))
    assert differences == ["the test samples are others", "int8: the file is another one"]


def test_the_page_needs_nothing_else(folder, study):
    page = (folder / "study.html").read_text()
    assert study["recommendation"].split(":")[0] in page
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert not [part for part in page.split('src="')[1:] if not part.startswith("data:")]
    assert all(item["name"] in page for item in study["rows"])


def test_mistakes_are_named(tmp_path, run, capsys):
    recipe = (run.parent / "small.yaml").read_text()
    (tmp_path / "wrong.yaml").write_text(recipe.replace("study: {", "study: {variants: [int9], "))
    for arguments, message in (
        (["runs/none"], "no such run, recipe or model"),
        ([str(run), "--variants", "int9"], "did you mean 'int8'?"),
        ([str(run), "--calib", "x.npz"], "--calib is for an ONNX file"),
        ([str(run), "--margin", "2"], "--margin is out of range"),
        (["--repeat", str(tmp_path)], "the folder is not a study"),
        ([], "name what is to be studied"),
        ([str(tmp_path / "wrong.yaml")], "did you mean 'int8'?"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["study", *arguments, "--out", str(tmp_path / "never")])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "never").exists()
