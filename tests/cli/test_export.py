"""`unitrain export` as a user types it: what is written, what is printed, what the exit code is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from unitrain.cli.main import main

MODEL = """\
name: small
arguments: {classes: 3}
inputs: {features: {shape: [4], low: 0, high: 8}}
layers:
  - {type: dense, name: hidden, units: 8, activation: relu}
  - {type: dense, name: out, units: $classes}
"""

RECIPE = """\
name: flats
model:
  inputs: {rooms: {shape: [8]}, floor: {shape: [1], dtype: integer}}
  layers:
    - {type: embedding, name: floors, inputs: [floor], vocabulary: 7, width: 2}
    - {type: flatten, name: flat}
    - {type: concatenate, name: size, inputs: [rooms, flat]}
    - {type: dense, name: hidden, units: 8, activation: relu}
    - {type: dense, name: let, units: 1}
    - {type: dense, name: rent, inputs: [hidden], units: 1}
  outputs: [let, rent]
data:
  source: {type: table, file: flats.csv, target: {let: is let, rent: price}}
  features: {rooms: [size, year, town, lift], floor: [floor]}
  per_column: {year: min_max}
  missing: MISSING
  unseen_category: UNSEEN
  target_scaling: standardise
loss: {let: {loss: binary_cross_entropy}, rent: {loss: mse}}
optimizer: adam
training: {epochs: 1, batch_size: 16}
"""


def write_flats(path: Path, rows: int = 150) -> None:
    generator = np.random.default_rng(7)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["size", "year", "town", "lift", "floor", "is let", "price"])
        for row in range(rows):
            size = "" if row % 11 == 3 else f"{generator.normal(80, 20):.1f}"
            town = "" if row % 13 == 5 else generator.choice(["Bern", "Genève", "Zürich", "Chur"])
            year, lift, floor = generator.integers(1900, 2020), generator.choice(["true", "false"]), row % 6
            let, price = generator.choice(["no", "yes"]), f"{generator.normal(2000, 400):.2f}"
            writer.writerow([size, year, town, lift, floor, let, price])


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


@pytest.fixture
def folder(tmp_path, monkeypatch, capsys) -> Path:
    (tmp_path / "small.yaml").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(folder: Path, capsys, missing: str, unseen: str) -> None:
    write_flats(folder / "flats.csv")
    (folder / "flats.yaml").write_text(RECIPE.replace("MISSING", missing).replace("UNSEEN", unseen))
    assert run(capsys, "fit", "flats.yaml", "--out", "flats")[0] == 0


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("onnx", "small.onnx"),
        ("torch", "small.pt2"),
        ("keras", "small.keras"),
        ("saved-model", "small-saved-model"),
        ("safetensors", "small.safetensors"),
    ],
)
def test_a_model_is_written_and_compared(folder, capsys, target, name):
    code, out, err = run(capsys, "export", "small.yaml", "--to", target)
    assert (code, err) == (0, "")
    assert out.startswith("note: the weights are not trained: drawn from seed 0\n")
    assert f"{name}: " in out
    assert "run again and right" in out
    assert sorted(entry.name for entry in folder.iterdir()) == sorted([name, "small.yaml"])


def test_options_of_onnx_and_arguments_of_the_model(folder, capsys):
    code, out, _ = run(
        capsys,
        "export",
        "small.yaml",
        "--to",
        "onnx",
        "--opset",
        "17",
        "--set",
        "classes=5",
        "--out",
        "x.onnx",
        "--json",
    )
    assert code == 0
    said = json.loads(out)
    assert said["path"] == "x.onnx"
    assert said["passed"] is True
    assert said["size_bytes"] == (folder / "x.onnx").stat().st_size
    assert said["verdicts"]["out, batch of 5"]["passed"] is True
    session = onnxruntime.InferenceSession(folder / "x.onnx", providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == ["batch", 5]


@pytest.mark.parametrize("policy", ["filled", "dropped"])
def test_raw_columns_give_what_predict_gives(folder, capsys, policy):
    """The whole raw file, row by row, against `unitrain predict`; rows that it leaves out are NaN."""
    if policy == "filled":
        trained(folder, capsys, "{numeric: median, category: most_frequent}", "ignore")
    else:
        trained(folder, capsys, "{numeric: drop_row, category: drop_row}", "error")
    code, out, err = run(capsys, "export", "flats", "--to", "onnx", "--with-preprocessing", "--out", "raw.onnx")
    assert (code, err) == (0, ""), err
    assert "run again and right" in out
    assert run(capsys, "predict", "flats", "flats.csv", "--out", "p.npz")[0] == 0
    wanted = np.load("p.npz")
    with (folder / "flats.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    session = onnxruntime.InferenceSession("raw.onnx", providers=["CPUExecutionProvider"])
    given = {
        item.name: np.array([row[item.name] for row in rows], dtype=object)
        if item.type == "tensor(string)"
        else np.array([float(row[item.name] or "nan") for row in rows])
        for item in session.get_inputs()
    }
    names = [item.name for item in session.get_outputs()]
    found = dict(zip(names, session.run(None, given), strict=True))
    kept = wanted["row"] if policy == "dropped" else np.arange(len(rows))
    left_out = np.setdiff1d(np.arange(len(rows)), kept)
    assert (len(left_out) > 0) == (policy == "dropped")
    assert np.isnan(found["rent.prediction"][left_out]).all()
    assert set(found["let.prediction"][left_out]) <= {""}
    np.testing.assert_array_equal(found["let.prediction"][kept], wanted["let.prediction"])
    np.testing.assert_allclose(found["let.probabilities"][kept, 1], wanted["let.probability.yes"], rtol=1e-5)
    np.testing.assert_allclose(found["rent.prediction"][kept], wanted["rent.prediction"], rtol=1e-6)


def test_a_town_that_training_did_not_have(folder, capsys):
    trained(folder, capsys, "{numeric: median, category: most_frequent}", "error")
    assert run(capsys, "export", "flats", "--to", "onnx", "--with-preprocessing")[0] == 0
    session = onnxruntime.InferenceSession("flats.onnx", providers=["CPUExecutionProvider"])
    given = {"size": [80.0, 80.0], "year": [1990.0, 1990.0], "floor": [2.0, 2.0]}
    arrays = {name: np.array(values) for name, values in given.items()}
    words = {"town": ["Chur", "Oslo"], "lift": ["true", "true"]}
    arrays |= {name: np.array(values, dtype=object) for name, values in words.items()}
    word, rent = session.run(["let.prediction", "rent.prediction"], arrays)
    assert word[0] in ("no", "yes")
    assert word[1] == ""
    assert np.isfinite(rent).tolist() == [True, False]


def test_images_of_a_run(folder, capsys):
    recipe = Path(__file__).parents[2] / "recipes" / "digits-cnn.yaml"
    assert run(capsys, "fit", str(recipe), "--out", "digits", "--epochs", "1")[0] == 0
    assert run(capsys, "export", "digits", "--to", "onnx", "--with-preprocessing")[0] == 0
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = data.images[:300, ..., None].astype(np.uint8)
    session = onnxruntime.InferenceSession("digits.onnx", providers=["CPUExecutionProvider"])
    words = session.run(["prediction"], {"image": pixels})[0]
    # The run has learnt from one epoch; what it cannot be is chance.
    assert np.mean(words == data.target[:300].astype(str)) > 0.5


def test_a_run_without_its_data_is_compared_on_drawn_inputs(folder, capsys):
    trained(folder, capsys, "{numeric: median, category: most_frequent}", "ignore")
    (folder / "flats.csv").unlink()
    code, out, _ = run(capsys, "export", "flats", "--to", "onnx")
    assert code == 0
    assert "compared on inputs drawn at random" in out
    code, _, err = run(capsys, "export", "flats", "--to", "onnx", "--with-preprocessing", "--force")
    assert code == 2
    assert "flats.csv" in err


def test_a_wrong_export_leaves_nothing_and_exits_with_1(folder, capsys, monkeypatch):
    from unitrain.verify import export as checked

    written = checked.write
    monkeypatch.setattr(
        checked,
        "write",
        lambda graph, weights, *rest: written(graph, {name: array + 1 for name, array in weights.items()}, *rest),
    )
    code, out, err = run(capsys, "export", "small.yaml", "--to", "safetensors")
    assert (code, out) == (1, "")
    assert "not exported" in err
    assert "FAIL ratio" in err
    assert [entry.name for entry in folder.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["small.yaml", "--to", "onix"], "did you mean 'onnx'?"),
        (["smal.yaml", "--to", "onnx"], "did you mean 'small.yaml'?"),
        (["small.yaml", "--to", "onnx", "--exporter", "jax"], "unknown exporter 'jax'"),
        (["small.yaml", "--to", "onnx", "--opset", "3"], "this opset cannot be written"),
        (["small.yaml", "--to", "keras", "--opset", "18"], "--opset is for --to onnx"),
        (["small.yaml", "--to", "onnx", "--with-preprocessing"], "only a run has preprocessing"),
        (["small.yaml", "--to", "onnx", "--out", "x.txt"], "another suffix"),
        (["small.yaml", "--to", "onnx", "--out", "no/x.onnx"], "the folder does not exist"),
        (["small.yaml", "--to", "onnx", "--set", "clases=4"], "did you mean 'classes'?"),
        ([".", "--to", "onnx"], "the folder is not a run"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mistakes(folder, capsys, arguments, message):
    code, out, err = run(capsys, "export", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert [entry.name for entry in folder.iterdir()] == ["small.yaml"]
