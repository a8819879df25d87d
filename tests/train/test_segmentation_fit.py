"""Segmentation from folders to metrics: a model of one 1 x 1 convolution finds what a pixel's colour says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from unitrain.cli.main import app

RECIPE = """
name: pixels
model:
  inputs: {image: {shape: [6, 8, 3]}}
  layers:
    - {type: conv2d, name: logits, filters: 3, kernel_size: 1}
data:
  source:
    type: image_masks
    images: images
    masks: masks
    classes: {red: [255, 0, 0], green: [0, 255, 0], blue: [0, 0, 255]}
    others: ignore
  split: {validation: 0.25, test: 0.25}
  augment: [flip, {type: shift, height: 1, width: 1, mask_fill: 255}]
loss: {type: cross_entropy, ignore_index: 255}
optimizer: {type: adam, lr: 0.3}
metrics: [accuracy, iou, {type: iou, average: per_class}, dice]
training: {epochs: 8, batch_size: 4}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    rng = np.random.default_rng(5)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number in range(32):
        codes = rng.integers(0, 3, size=(6, 8))
        colours = 255 * np.eye(3)[codes]
        noisy = (0.5 * colours + rng.integers(0, 100, size=colours.shape)).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"images/{number}.png")
        colours[rng.random((6, 8)) < 0.1] = 77  # void
        Image.fromarray(colours.astype(np.uint8)).save(folder / f"masks/{number}.png")
    shown = CliRunner().invoke(app, ["fit", str(folder / "recipe.yaml"), "--out", str(folder / "run")])
    assert shown.exit_code == 0, shown.output
    return folder / "run"


@pytest.mark.parametrize("backend", ["numpy", "torch", "keras", "onnx"])
def test_every_backend_finds_the_masks(run: Path, backend: str) -> None:
    """The metrics are those of the predictions that are written, counted here class by class."""
    shown = CliRunner().invoke(app, ["evaluate", str(run), "--backend", backend, "--part", "train", "--json"])
    assert shown.exit_code == 0, shown.output
    values = json.loads(shown.output)["values"]
    assert values["iou"] > 0.95
    out = run / f"{backend}.npz"
    shown = CliRunner().invoke(
        app, ["predict", str(run), str(run.parent / "images"), "--out", str(out), "--backend", backend]
    )
    assert shown.exit_code == 0, shown.output
    names = sorted(path.name for path in (run.parent / "images").iterdir())
    with np.load(out) as archive:
        found = archive["prediction"]
    colours = np.stack([np.asarray(Image.open(run.parent / "masks" / name)) for name in names])
    counted = colours.max(axis=-1) == 255
    right = [(found == code) & (colours[..., code] == 255) for code in range(3)]
    either = [((found == code) | (colours[..., code] == 255)) & counted for code in range(3)]
    overlap = [r.sum() / e.sum() for r, e in zip(right, either, strict=True)]
    shown = CliRunner().invoke(app, ["evaluate", str(run), "--backend", backend, "--part", "test", "--json"])
    each = json.loads(shown.output)["values"]["iou_per_class"]
    # All parts together lie between the parts.
    assert np.mean(overlap) > 0.95
    assert np.mean(each) == pytest.approx(json.loads(shown.output)["values"]["iou"], rel=1e-12)


def test_each_class_is_shown(run: Path) -> None:
    shown = CliRunner().invoke(app, ["evaluate", str(run)])
    assert "iou_per_class:" in shown.output
    assert "iou_per_class, class 2" in (run / "report.html").read_text(encoding="utf-8")


def test_a_table_cannot_hold_masks(run: Path) -> None:
    shown = CliRunner().invoke(app, ["predict", str(run), str(run.parent / "images"), "--out", str(run / "p.csv")])
    assert "write an .npz" in str(shown.exception)
