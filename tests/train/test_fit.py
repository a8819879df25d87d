"""Whole runs on real data: the run folder, going on, other backends, evaluating and predicting."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from iris import iris_recipe
from sklearn.datasets import load_iris

from unitrain.spec.errors import InputError
from unitrain.train.events import Observer
from unitrain.train.fit import fit, resume
from unitrain.train.inference import TrainedRun, write_predictions
from unitrain.train.recipe import load_recipe
from unitrain.train.run_folder import RunFolder
from unitrain.weights.store import load_tensors

RECIPE = iris_recipe("""\
schedule: {type: cosine, warmup: 1}
metrics: [accuracy, confusion_matrix]
training: {epochs: 8, batch_size: 16, accumulate: 2}
""")


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "iris.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("iris")
    path = folder / "iris.yaml"
    path.write_text(RECIPE)
    return fit(path, out=folder / "run").folder.path


def same_tensors(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def test_a_run_learns_and_leaves_a_whole_folder(trained):
    for name in ("recipe.yaml", "model.yaml", "preprocessing.json", "environment.json", "result.json", "report.html"):
        assert (trained / name).is_file(), name
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    result = json.loads((trained / "result.json").read_text())
    assert result["reason"] == "finished"
    assert result["test"]["accuracy"] > 0.85
    matrix = np.array(result["test"]["confusion_matrix"])
    assert matrix.shape == (3, 3)
    assert matrix.trace() / matrix.sum() == pytest.approx(result["test"]["accuracy"])
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["packages"]["numpy"] == np.__version__
    assert environment["backend"] == "numpy"


def test_the_kept_weights_are_the_averages_of_the_best_epoch(trained):
    checkpoints = RunFolder(trained).checkpoints
    best = checkpoints.load(checkpoints.newest().state.best_step)
    kept = load_tensors(trained / "weights.safetensors")
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation"]["loss"] for line in lines]
    assert best.state.best_epoch == 1 + int(np.argmin(losses))
    for name, average in best.slots["ema"].items():
        assert np.array_equal(kept[name], average)
    assert np.array_equal(kept["norm.running_mean"], best.weights["norm.running_mean"])
    result = json.loads((trained / "result.json").read_text())
    assert result["validation"]["loss"] == pytest.approx(min(losses), rel=1e-6)


def test_two_runs_are_bit_identical(recipe, tmp_path):
    weights = [load_tensors(fit(recipe, out=tmp_path / name).folder.weights) for name in "ab"]
    assert same_tensors(*weights)
    other = load_tensors(fit(recipe, out=tmp_path / "c", overrides=["seed=1"]).folder.weights)
    assert not same_tensors(weights[0], other)


@pytest.mark.parametrize("steps", [1, 8, 13, 20])
def test_a_resumed_run_ends_bit_identical(recipe, tmp_path, steps):
    """Steps 8 and 20 end an epoch of four updates; the others break off inside one."""
    whole = fit(recipe, out=tmp_path / "whole").folder
    part = fit(recipe, out=tmp_path / "part", overrides=[f"training.max_steps={steps}"]).folder
    resume(part.path, overrides=["training.max_steps=null"])
    one, two = whole.checkpoints.newest(), part.checkpoints.newest()
    assert same_tensors(dict(one.weights), dict(two.weights))
    for slot in one.slots:
        assert same_tensors(dict(one.slots[slot]), dict(two.slots[slot]))
    assert same_tensors(load_tensors(whole.weights), load_tensors(part.weights))
    assert len(part.history()) == 8
    values = [[{**line, "seconds": 0, "samples_per_second": 0} for line in run.history()] for run in (whole, part)]
    assert values[0] == values[1]


def test_another_backend_goes_on(recipe, tmp_path):
    """Half on NumPy and half on torch is near a whole run on NumPy: the distance of float32 rounding."""
    whole = fit(recipe, out=tmp_path / "whole").folder
    part = fit(recipe, out=tmp_path / "part", overrides=["training.max_steps=15"]).folder
    resume(part.path, backend="torch", overrides=["training.max_steps=null"])
    one, two = load_tensors(whole.weights), load_tensors(part.weights)
    for name in one:
        assert np.allclose(one[name], two[name], rtol=1e-3, atol=1e-4), name
    assert json.loads((part.path / "environment.json").read_text())["resumed"][0]["backend"] == "torch"


def test_a_finished_run_is_not_resumed_but_can_be_lengthened(recipe, tmp_path):
    folder = fit(recipe, out=tmp_path / "run", overrides=["training.epochs=2"]).folder
    with pytest.raises(InputError, match="the run has finished"):
        resume(folder.path)
    assert resume(folder.path, overrides=["training.epochs=3"]).end.epoch == 3


def test_a_folder_in_use_is_refused(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        fit(recipe, out=tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_an_interrupted_run_keeps_weights_and_says_how_to_go_on(recipe, tmp_path):
    import os
    import signal

    class Impatient(Observer):
        def on_epoch(self, event):
            if event.epoch == 2:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    result = fit(recipe, out=tmp_path / "run", observers=[Impatient()])
    assert result.end.reason == "interrupted"
    assert f"unitrain fit --resume {tmp_path / 'run'}" in result.end.message
    assert result.folder.weights.is_file()
    assert signal.getsignal(signal.SIGINT) is before
    assert resume(result.folder.path).end.reason == "finished"


@pytest.mark.parametrize("backend", ["numpy", "torch", "keras"])
def test_infinite_losses_name_layer_and_step(recipe, tmp_path, backend):
    overrides = ["optimizer.type=sgd", "optimizer.lr=1e38", "optimizer.ema=null", "model.layers.0.activation=relu"]
    recipe.write_text(RECIPE.replace("    - {type: batch_norm, name: norm}\n", ""))
    end = fit(recipe, out=tmp_path / "run", backend=backend, overrides=overrides).end
    assert end.reason == "not finite"
    assert "step" in end.message
    assert "layer 'species'" in end.message or "layer 'hidden'" in end.message


def test_validation_is_demanded_where_it_is_waited_for(recipe, tmp_path):
    none = ["data.split.validation=0"]
    with pytest.raises(InputError, match="needs a validation part"):
        fit(recipe, out=tmp_path / "a", overrides=[*none, "training.early_stopping.patience=2"])
    with pytest.raises(InputError, match="needs a validation part"):
        fit(recipe, out=tmp_path / "b", overrides=[*none, "schedule.type=plateau"])
    assert not (tmp_path / "a").exists()
    assert fit(recipe, out=tmp_path / "c", overrides=none).end.best_epoch is None


def test_too_many_classes_for_the_output(recipe, tmp_path):
    recipe.write_text(RECIPE.replace("units: 3", "units: 2"))
    with pytest.raises(InputError) as caught:
        fit(recipe, out=tmp_path / "run")
    assert "3 classes" in str(caught.value)
    assert "iris.yaml:2" in str(caught.value)


def test_evaluating_repeats_the_run_on_every_backend(trained):
    result = json.loads((trained / "result.json").read_text())
    for backend in ("numpy", "torch", "keras"):
        samples, values = TrainedRun.open(trained, backend=backend).evaluate("test")
        assert samples == 22
        assert values["loss"] == pytest.approx(result["test"]["loss"], rel=1e-5)
        assert values["confusion_matrix"] == result["test"]["confusion_matrix"]
    with pytest.raises(InputError, match="did you mean 'test'"):
        TrainedRun.open(trained).evaluate("tset")


def iris_table(path: Path, columns: list[str]) -> Path:
    data = load_iris()
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow([*columns, "species"])
        for row, kind in zip(data.data, data.target, strict=True):
            writer.writerow([*row, data.target_names[kind]])
    return path


def test_predicting_a_table_uses_the_stored_preprocessing(tmp_path):
    table = iris_table(tmp_path / "iris.csv", ["a", "b", "c", "d"])
    path = tmp_path / "table.yaml"
    path.write_text(RECIPE.replace("source: iris", "source: {type: table, file: iris.csv, target: species}"))
    folder = fit(path, out=tmp_path / "run").folder.path
    run = TrainedRun.open(folder)
    whole = run.predict(table).columns
    assert len(whole["prediction"]) == 150
    assert set(whole["prediction"]) == {"setosa", "versicolor", "virginica"}
    total = sum(whole[f"probability.{name}"] for name in ("setosa", "versicolor", "virginica"))
    assert np.allclose(total, 1.0)
    # A row alone is standardised with the training data's mean, not its own: the same prediction.
    lines = table.read_text().splitlines()
    (tmp_path / "one.csv").write_text("\n".join([lines[0], lines[77]]) + "\n")
    one = run.predict(tmp_path / "one.csv").columns
    assert one["probability"][0] == pytest.approx(whole["probability"][76], rel=1e-6)
    right = np.mean(whole["prediction"] == load_iris().target_names[load_iris().target])
    samples, values = run.evaluate(data=table)
    assert samples == 150
    assert values["accuracy"] == pytest.approx(right)


def test_rows_that_are_dropped_are_told(tmp_path):
    table = iris_table(tmp_path / "iris.csv", ["a", "b", "c", "d"])
    path = tmp_path / "table.yaml"
    data = "data: {source: {type: table, file: iris.csv, target: species}, missing: {numeric: drop_row}}"
    path.write_text(RECIPE.replace("data: {source: iris}", data))
    run = TrainedRun.open(fit(path, out=tmp_path / "run").folder.path)
    lines = table.read_text().splitlines()
    (tmp_path / "holes.csv").write_text("\n".join([*lines[:3], ",1,2,3,setosa", *lines[3:5]]) + "\n")
    predictions = run.predict(tmp_path / "holes.csv")
    assert predictions.columns["row"].tolist() == [0, 1, 3, 4]
    assert any("1 row" in note for note in predictions.notes)


def test_predictions_are_written_in_three_formats(tmp_path):
    columns = {"prediction": np.array(["a", "b"]), "probability": np.array([0.5, 0.75])}
    for suffix in (".csv", ".parquet", ".npz"):
        write_predictions(tmp_path / f"p{suffix}", columns)
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [row["prediction"] for row in rows] == ["a", "b"]
    assert pyarrow.parquet.read_table(tmp_path / "p.parquet")["probability"].to_pylist() == [0.5, 0.75]
    assert np.load(tmp_path / "p.npz", allow_pickle=False)["prediction"].tolist() == ["a", "b"]
    with pytest.raises(InputError, match="there already"):
        write_predictions(tmp_path / "p.csv", columns)
    write_predictions(tmp_path / "p.csv", columns, replace=True)
    with pytest.raises(InputError, match=r"\.parquet, \.npz"):
        write_predictions(tmp_path / "p.xlsx", columns)


def test_a_regression_is_predicted_in_the_targets_units(tmp_path):
    path = tmp_path / "diabetes.yaml"
    path.write_text("""\
model: {inputs: {features: {shape: [10]}}, layers: [{type: dense, name: value, units: 1}]}
data: {source: diabetes, target_scaling: standardise}
loss: mse
optimizer: {type: adam, lr: 0.05}
metrics: [rmse, r2]
training: {epochs: 30, batch_size: 64}
""")
    result = fit(path, out=tmp_path / "run")
    # scikit-learn's least squares on these data reaches an r2 of about 0.4 to 0.55 on held-out thirds.
    assert result.end.test["r2"] > 0.3
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    np.savez(tmp_path / "d.npz", **dict(zip(data.feature_names, data.data.T, strict=True)))
    predicted = TrainedRun.open(result.folder.path).predict(tmp_path / "d.npz").columns["prediction"]
    assert 100 < predicted.mean() < 200  # the targets' mean is 152


def test_weights_and_sample_order_are_the_same_for_every_backend(recipe, tmp_path):
    """One epoch of float64 on three backends: training losses agree to rounding."""
    losses = []
    for backend in ("numpy", "torch", "keras"):
        options = ["training.precision=float64", "training.epochs=2"]
        folder = fit(recipe, out=tmp_path / backend, backend=backend, overrides=options).folder
        losses.append([line["training"]["loss"] for line in folder.history()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert losses[0] == pytest.approx(losses[2], rel=1e-12)


def test_tensorboard_events_hold_the_values(recipe, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = fit(recipe, out=tmp_path / "run", overrides=["tracking=[tensorboard]", "training.epochs=2"]).folder
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    written = [event.value for event in events.Scalars("validation/loss")]
    assert written == pytest.approx([line["validation"]["loss"] for line in folder.history()], rel=1e-6)


def test_augmented_images_train(tmp_path):
    path = tmp_path / "digits.yaml"
    path.write_text("""\
model:
  inputs: {image: {shape: [8, 8, 1]}}
  layers: [{type: flatten, name: flat}, {type: dense, name: digit, units: 10}]
data:
  source: digits
  limit: 300
  augment: [{type: shift, height: 1, width: 1}]
loss: cross_entropy
optimizer: {type: adam, lr: 0.02}
metrics: [accuracy]
training: {epochs: 6, batch_size: 50}
""")
    plain = fit(path, out=tmp_path / "a", overrides=["data.augment=[]"])
    moved = fit(path, out=tmp_path / "b")
    again = fit(path, out=tmp_path / "c", backend="torch")
    assert moved.end.validation["accuracy"] > 0.7
    assert moved.end.validation["loss"] != plain.end.validation["loss"]
    assert again.end.validation["loss"] == pytest.approx(moved.end.validation["loss"], rel=1e-4)


def test_a_loaded_recipe_can_be_trained(recipe, tmp_path):
    assert fit(load_recipe(recipe, ["training.epochs=1"]), out=tmp_path / "run").end.epoch == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["loss={type: cross_entropy, class_weights: [1, 2]}"], "the loss does not fit output 'species'"),
        (["loss=binary_cross_entropy"], "the loss does not fit output 'species'"),
        (["loss=mse", "metrics=[accuracy]"], "does not fit output 'species'"),
    ],
)
def test_losses_and_metrics_that_do_not_fit_are_refused_before_the_run(recipe, tmp_path, overrides, expected):
    with pytest.raises(InputError, match=expected):
        fit(recipe, out=tmp_path / "run", overrides=overrides)
    assert not (tmp_path / "run").exists()


PLACES = """\
name: places
model: {inputs: {x: {shape: [4, 2]}}, layers: [{type: dense, name: y, units: 3}]}
data: {source: {type: npz, file: data.npz, inputs: {x: x}, targets: {y: y}}, split: {validation: 0.2, test: 0}}
loss: cross_entropy
optimizer: adam
metrics: [accuracy, confusion_matrix]
training: {epochs: 1, batch_size: 16}
"""


@pytest.mark.parametrize("ignored", [-1, 255])
def test_codes_of_no_class_are_refused_unless_ignored(tmp_path, ignored):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (60, 4))
    codes[rng.random(codes.shape) < 0.3] = ignored
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(60, 4, 2)).astype(np.float32), y=codes)
    path = tmp_path / "places.yaml"
    path.write_text(PLACES)
    with pytest.raises(InputError, match="cannot tell") as caught:
        fit(path, out=tmp_path / "run")
    problem = caught.value.problems[0]
    assert (problem.line, problem.found, problem.allowed) == (4, str(ignored), "0 .. 2")
    end = fit(path, out=tmp_path / "run", overrides=[f"loss.ignore_index={ignored}"]).end
    counted = np.sum(end.validation["confusion_matrix"])
    assert 0 < counted < 12 * 4


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("{type: cross_entropy, ignore_index: -1}", "ignore_index"), ("binary_cross_entropy", "two classes apart")],
)
def test_classes_by_name_are_not_ignored_by_number_nor_more_than_a_loss_can_tell(tmp_path, loss, expected):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(60, 4)).astype(np.float32), y=rng.integers(-1, 3, 60))
    path = tmp_path / "classes.yaml"
    units = 1 if loss == "binary_cross_entropy" else 4
    text = PLACES.replace("[4, 2]", "[4]").replace("units: 3", f"units: {units}")
    path.write_text(text.replace("loss: cross_entropy", f"loss: {loss}"))
    with pytest.raises(InputError, match=expected) as caught:
        fit(path, out=tmp_path / "run")
    assert caught.value.problems[0].line == 4


def test_a_changed_optimizer_or_model_is_not_resumed(recipe, tmp_path):
    folder = fit(recipe, out=tmp_path / "run", overrides=["training.max_steps=5"]).folder
    more = ["training.max_steps=null"]
    with pytest.raises(InputError, match="optimizer state does not fit"):
        resume(folder.path, overrides=[*more, "optimizer={type: sgd, momentum: 0.9}"])
    (folder.path / "model.yaml").write_text((folder.path / "model.yaml").read_text().replace("units: 16", "units: 8"))
    with pytest.raises(InputError, match="does not fit the model"):
        resume(folder.path, overrides=more)


def test_observers_are_closed_after_an_error(recipe, tmp_path):
    class Failing(Observer):
        closed = False

        def on_epoch(self, event):
            raise OSError("no space")

        def close(self):
            self.closed = True

    observer = Failing()
    with pytest.raises(OSError, match="no space"):
        fit(recipe, out=tmp_path / "run", observers=[observer])
    assert observer.closed
