"""fit, evaluate and predict as a user types them: what is printed, what the exit code is."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from unitrain.cli.main import main

RECIPE = """\
name: iris
model:
  inputs: {features: {shape: [4]}}
  layers:
    - {type: dense, name: hidden, units: 8, activation: relu}
    - {type: dense, name: species, units: 3}
data: {source: {type: table, file: iris.csv, target: species}}
loss: cross_entropy
optimizer: {type: adam, lr: 0.03}
metrics: [accuracy, confusion_matrix]
training: {epochs: 6, batch_size: 16}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    from sklearn.datasets import load_iris

    data = load_iris()
    with (tmp_path / "iris.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["a", "b", "c", "d", "species"])
        for row, kind in zip(data.data, data.target, strict=True):
            writer.writerow([*row, data.target_names[kind]])
    (tmp_path / "iris.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_fit_prints_every_epoch_and_says_where_things_lie(folder, capsys):
    code, out, err = run(capsys, "fit", "iris.yaml", "--out", "run")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "iris: 67 parameters on numpy (cpu)"
    assert lines[1] == "samples: 105 train, 23 validation, 22 test"
    assert sum(line.startswith("epoch ") for line in lines) == 6
    assert lines[-3:] == [
        "run folder  run",
        f"weights     {Path('run') / 'weights.safetensors'}",
        f"report      {Path('run') / 'report.html'}",
    ]


def test_the_same_rows_in_two_parts_are_reported(folder, capsys):
    lines = (folder / "iris.csv").read_text().splitlines()
    (folder / "iris.csv").write_text("\n".join([*lines, *lines[1:]]) + "\n")
    _, out, _ = run(capsys, "fit", "iris.yaml", "--epochs", "1")
    leaks = [line for line in out.splitlines() if line.startswith("leak: ")]
    assert len(leaks) == 3
    assert "test samples stand in train too" in leaks[1]


def test_fit_options_are_short_for_set(folder, capsys):
    code, out, _ = run(
        capsys,
        "fit",
        "iris.yaml",
        "--epochs",
        "2",
        "--seed",
        "5",
        "--batch-size",
        "50",
        "--set",
        "optimizer.lr=0.5",
        "--out",
        "run",
        "--json",
    )
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["start", "epoch", "epoch", "end", "written"]
    assert events[-1]["run folder"] == "run"
    assert events[0]["batches_per_epoch"] == 3
    assert events[1]["learning_rate"] == 0.5
    assert json.loads((folder / "run" / "environment.json").read_text())["seed"] == 5


def test_fit_makes_a_folder_of_its_own_and_quiet_prints_it_alone(folder, capsys):
    code, out, _ = run(capsys, "fit", "iris.yaml", "--quiet", "--epochs", "1")
    assert code == 0
    path = Path(out.strip())
    assert path.parent == Path("runs")
    assert path.name.startswith("iris-numpy-")
    assert (path / "weights.safetensors").is_file()


def test_dry_run_takes_a_step_and_keeps_nothing(folder, capsys):
    before = sorted(path.name for path in folder.iterdir())
    code, out, _ = run(capsys, "fit", "iris.yaml", "--dry-run", "--backend", "torch")
    assert code == 0
    assert "iris on torch (cpu): one step taken, loss" in out
    assert "6 epochs of 7 batches, 42 updates" in out
    assert sorted(path.name for path in folder.iterdir()) == before


def test_evaluate_and_predict_on_another_backend(folder, capsys):
    run(capsys, "fit", "iris.yaml", "--out", "run")
    code, out, _ = run(capsys, "evaluate", "run", "--backend", "torch")
    assert code == 0
    assert out.startswith("test: 22 samples on torch (cpu)\nloss ")
    assert "confusion_matrix:" in out
    code, out, _ = run(capsys, "evaluate", "run", "--data", "iris.csv", "--json")
    assert json.loads(out)["samples"] == 150
    accuracy = json.loads(out)["values"]["accuracy"]
    code, out, _ = run(capsys, "predict", "run", "iris.csv", "--out", "predicted.csv", "--backend", "torch")
    assert code == 0
    assert out.startswith("150 predictions in predicted.csv: prediction, probability")
    predicted = [row["prediction"] for row in csv.DictReader((folder / "predicted.csv").open())]
    true = [row["species"] for row in csv.DictReader((folder / "iris.csv").open())]
    assert np.mean([one == two for one, two in zip(predicted, true, strict=True)]) == pytest.approx(accuracy)
    code, _, err = run(capsys, "predict", "run", "iris.csv", "--out", "predicted.csv")
    assert code == 2
    assert "--force" in err


def test_new_samples_may_leave_the_target_blank_or_hold_anything_there(folder, capsys):
    run(capsys, "fit", "iris.yaml", "--out", "run")
    run(capsys, "predict", "run", "iris.csv", "--out", "known.csv")
    rows = list(csv.DictReader((folder / "iris.csv").open()))
    for number, row in enumerate(rows):
        row["species"] = ("", "?", "tulip")[number % 3]
    with (folder / "new.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    code, _, err = run(capsys, "predict", "run", "new.csv", "--out", "new-predicted.csv")
    assert (code, err) == (0, "")
    assert (folder / "new-predicted.csv").read_text() == (folder / "known.csv").read_text()
    code, _, err = run(capsys, "evaluate", "run", "--data", "new.csv")
    assert code == 2
    assert "species" in err


def test_several_labels_are_answered_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 2))
    with (tmp_path / "labels.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["a", "b", "red", "green"])
        writer.writerows([*row, int(row[0] > 0), int(row[1] > 0)] for row in x)
    (tmp_path / "labels.yaml").write_text(
        "model: {inputs: {x: {shape: [2]}}, layers: [{type: dense, name: answers, units: 2}]}\n"
        "data: {source: {type: table, file: labels.csv, target: [red, green]}}\n"
        "loss: binary_cross_entropy\n"
        "optimizer: {type: adam, lr: 0.1}\n"
        "training: {epochs: 20, batch_size: 10}\n"
    )
    assert run(capsys, "fit", "labels.yaml", "--out", "run")[0] == 0
    assert run(capsys, "predict", "run", "labels.csv", "--out", "predicted.csv")[0] == 0
    found = list(csv.DictReader((tmp_path / "predicted.csv").open()))
    assert list(found[0]) == ["prediction.red", "prediction.green", "probability.red", "probability.green"]
    for name, column in (("red", 0), ("green", 1)):
        right = [
            row[f"prediction.{name}"] == str(int(value > 0)) for row, value in zip(found, x[:, column], strict=True)
        ]
        assert np.mean(right) > 0.9
        assert all((float(row[f"probability.{name}"]) > 0.5) == (row[f"prediction.{name}"] == "1") for row in found)
    assert run(capsys, "export", "run", "--to", "onnx", "--with-preprocessing", "--out", "labels.onnx")[0] == 0
    session = onnxruntime.InferenceSession("labels.onnx")
    (shares,) = session.run(["probabilities"], {"a": x[:, 0], "b": x[:, 1]})
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["red", "green"]
    expected = [[float(row[f"probability.{name}"]) for name in ("red", "green")] for row in found]
    np.testing.assert_allclose(shares, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit"], "one of the two"),
        (["fit", "iris.yaml", "--resume", "run"], "one of the two"),
        (["fit", "irs.yaml"], "did you mean 'iris.yaml'?"),
        (["fit", "iris.yaml", "--backend", "tensorflow"], "allowed: numpy, keras, torch"),
        (["fit", "iris.yaml", "--backend", "torch", "--device", "cuda:9"], "finds no device 'cuda:9'"),
        (["fit", "iris.yaml", "--set", "training.epoch=3"], "did you mean 'epochs'?"),
        (["fit", "iris.yaml", "--set", "data.source.file=irs.csv"], "iris.csv"),
        (["fit", "iris.yaml", "--set", "data.source.target=kind"], "kind"),
        (["fit", "--resume", "nowhere"], "no such run folder"),
        (["evaluate", "."], "not a run"),
        (["evaluate", "nowhere"], "no such run folder"),
    ],
)
def test_mistakes_are_answered_without_a_traceback(folder, capsys, arguments, expected):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert expected in err
    assert "Traceback" not in err
    assert "bug" not in err
    assert not (folder / "runs").exists()


def test_a_row_that_is_wrong_is_named(folder, capsys):
    lines = (folder / "iris.csv").read_text().splitlines()
    lines[40] = "5.0,oops,1.3,0.3,setosa"
    (folder / "iris.csv").write_text("\n".join(lines) + "\n")
    code, _, err = run(capsys, "fit", "iris.yaml", "--set", "data.source.columns.b=numeric")
    assert code == 2
    assert "iris.csv" in err
    assert "41" in err
    assert "oops" in err


def test_a_loss_that_is_not_finite_ends_with_code_1(folder, capsys):
    code, out, _ = run(capsys, "fit", "iris.yaml", "--set", "optimizer={type: sgd, lr: 1e38}", "--out", "run")
    assert code == 1
    assert "the loss is not finite at step" in out
    assert "layer '" in out
    assert json.loads((folder / "run" / "result.json").read_text())["reason"] == "not finite"


def test_json_says_null_for_what_is_not_finite_and_leaves_words_alone(folder, capsys):
    code, out, _ = run(capsys, "fit", "iris.yaml", "--set", "optimizer={type: sgd, lr: 1e38}", "--out", "run", "--json")
    assert code == 1
    end = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()][-2]
    assert end["reason"] == "not finite"
    assert "NaN" in end["message"] or "infinity" in end["message"]


def test_a_read_only_place_is_said(folder, capsys):
    (folder / "file").write_text("")
    code, _, err = run(capsys, "fit", "iris.yaml", "--out", "file/run")
    assert code == 2
    assert "the run folder cannot be made" in err


def test_ctrl_c_saves_and_the_run_goes_on(folder):
    """A real process and a real signal."""
    command = [sys.executable, "-m", "unitrain", "fit"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [*command, "iris.yaml", "--epochs", "100000", "--out", "run"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    metrics = folder / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with: unitrain fit --resume run" in out
    done = len(metrics.read_text().splitlines())
    again = subprocess.run(
        [*command, "--resume", "run", "--epochs", str(done + 2)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert again.returncode == 0, again.stderr
    epochs = [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()]
    assert epochs == list(range(1, done + 3))


def test_what_cannot_be_measured_is_null_in_json(folder, capsys):
    """The area under the curve of samples that are all of one class does not exist; NaN is no JSON."""
    run(capsys, "fit", "iris.yaml", "--out", "run", "--set", "metrics=[auc]")
    lines = (folder / "iris.csv").read_text().splitlines()
    (folder / "one.csv").write_text("\n".join(lines[:20]) + "\n")
    code, out, _ = run(capsys, "evaluate", "run", "--data", "one.csv", "--json")
    assert code == 0
    assert json.loads(out, parse_constant=pytest.fail)["values"]["auc"] is None
