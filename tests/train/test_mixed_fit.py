"""Whole runs in mixed precision: as accurate as in float32, gone on with to the last bit, and used as any run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitrain.backends import load_backend
from unitrain.backends.contract import Precision
from unitrain.backends.precision import MIXED, MIXED_BACKENDS
from unitrain.spec.errors import InputError
from unitrain.train import loss_scale
from unitrain.train.fit import fit, rehearse, resume
from unitrain.train.inference import TrainedRun
from unitrain.train.run_folder import RunFolder
from unitrain.verify.export import Options, export_checked

RECIPE = """\
name: digits
model:
  inputs: {image: {shape: [8, 8, 1]}}
  layers:
    - {type: conv2d, name: conv, filters: 8, kernel_size: 3}
    - {type: batch_norm, name: norm}
    - {type: relu, name: bend}
    - {type: max_pool2d, name: pool, kernel_size: 2}
    - {type: flatten, name: flat}
    - {type: dropout, name: drop, rate: 0.1}
    - {type: dense, name: digit, units: 10}
data: {source: digits, split: {validation: 0.2, test: 0}}
loss: cross_entropy
optimizer: {type: adam, lr: 0.01, ema: 0.9}
metrics: [accuracy]
schedule: cosine
training: {epochs: 8, batch_size: 32}
deterministic: true
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mixed") / "digits.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def runs(recipe: Path) -> dict[tuple[str, str], Path]:
    """A run of each backend in each precision."""
    found = {}
    for backend in MIXED_BACKENDS:
        for precision in ("float32", *MIXED):
            out = recipe.parent / f"{backend}-{precision}"
            fit(recipe, backend=backend, out=out, overrides=[f"training.precision={precision}"])
            found[backend, precision] = out
    return found


def accuracy(run: Path) -> float:
    value: float = json.loads((run / "result.json").read_text())["validation"]["accuracy"]
    return value


@pytest.mark.parametrize("backend", MIXED_BACKENDS)
@pytest.mark.parametrize("precision", MIXED)
def test_it_is_as_accurate_as_float32(runs: dict[tuple[str, str], Path], backend: str, precision: str) -> None:
    full = accuracy(runs[backend, "float32"])
    assert full > 0.95
    assert abs(accuracy(runs[backend, precision]) - full) <= 0.01


@pytest.mark.parametrize("backend", MIXED_BACKENDS)
@pytest.mark.parametrize("precision", MIXED)
def test_what_is_kept_is_float32(runs: dict[tuple[str, str], Path], backend: str, precision: str) -> None:
    checkpoint = RunFolder(runs[backend, precision]).checkpoints.newest()
    arrays = [*checkpoint.weights.values(), *(a for slot in checkpoint.slots.values() for a in slot.values())]
    assert all(array.dtype == np.float32 for array in arrays)
    # And holds numbers that 16 bits do not: float16 has 13 bits less, bfloat16 16.
    kernels = [array for name, array in checkpoint.weights.items() if name.endswith("kernel")]
    assert any((array.view(np.uint32) & 0x1FFF).any() for array in kernels)


def test_a_run_is_used_everywhere(runs: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    for (backend, precision), run in runs.items():
        own = TrainedRun.open(run).evaluate("validation")[1]
        assert own["accuracy"] == accuracy(run)
        # Where mixed precision is unknown the weights are those of a model in float32.
        for other in ("numpy", "onnx"):
            elsewhere = TrainedRun.open(run, backend=other).evaluate("validation")[1]
            assert abs(elsewhere["accuracy"] - own["accuracy"]) < 0.01, (backend, precision, other)
    run = TrainedRun.open(runs["torch", "mixed_float16"])
    assert run.program.predict({"image": np.zeros((3, 8, 8, 1), np.float32)})["digit"].dtype == np.float32
    data: Any = np.random.default_rng(0).uniform(size=(16, 8, 8, 1)).astype(np.float32)
    out = tmp_path / "model.onnx"
    result = export_checked(
        run.loaded.graph, run.program.weights(), "onnx", out, {"image": data}, Options(), replace=False
    )
    assert result
    assert out.is_file()


@pytest.mark.parametrize("backend", MIXED_BACKENDS)
def test_a_resumed_run_ends_with_the_same_bits(
    recipe: Path, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Doubled every 20 updates the scale soon overflows, again and again.
    monkeypatch.setattr(loss_scale, "INTERVAL", 20)
    overrides = ["training.precision=mixed_float16", "training.accumulate=2", "training.keep_best=null"]
    whole = fit(recipe, backend=backend, out=tmp_path / "whole", overrides=overrides)
    assert whole.end.skipped > 0
    fit(recipe, backend=backend, out=tmp_path / "parts", overrides=[*overrides, "training.max_steps=37"])
    parts = resume(tmp_path / "parts", overrides=["training.max_steps=null"])
    assert (parts.end.updates, parts.end.skipped, parts.end.loss_scale) == (
        whole.end.updates,
        whole.end.skipped,
        whole.end.loss_scale,
    )
    first, second = (result.folder.checkpoints.newest() for result in (whole, parts))
    assert first.state.loss_scale == second.state.loss_scale
    for name, array in first.weights.items():
        np.testing.assert_array_equal(second.weights[name], array, err_msg=name)
    for slot, arrays in first.slots.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(second.slots[slot][name], array, err_msg=f"{slot} {name}")
    page = parts.folder.report
    if page.is_file():
        assert f"{whole.end.skipped:,} updates skipped" in page.read_text()


def test_a_run_goes_on_in_another_precision(recipe: Path, tmp_path: Path) -> None:
    settings = ["training.precision=mixed_float16", "training.epochs=1"]
    fit(recipe, backend="torch", out=tmp_path / "run", overrides=settings)
    end = resume(tmp_path / "run", backend="numpy", overrides=["training.precision=float32", "training.epochs=2"]).end
    assert (end.epoch, end.skipped, end.loss_scale) == (2, 0, None)


@pytest.mark.parametrize("precision", MIXED)
def test_numpy_refuses_it_and_names_who_does_not(recipe: Path, precision: str) -> None:
    with pytest.raises(InputError) as caught:
        fit(recipe, backend="numpy", overrides=[f"training.precision={precision}"])
    text = str(caught.value)
    assert f"'numpy' does not compute in {precision}" in text
    assert "training.precision" in text
    assert "torch and keras" in text


def test_who_computes_in_mixed_precision() -> None:
    mixed: set[Precision] = {*MIXED}
    for name in ("numpy", "keras", "torch", "onnx"):
        assert (mixed <= {*load_backend(name).precisions}) == (name in MIXED_BACKENDS)


def test_a_choice_of_tensor_float_32_without_effect_is_said(recipe: Path) -> None:
    for choice in ("true", "false"):
        lines = rehearse(recipe, backend="torch", overrides=[f"training.tf32={choice}"])
        assert any("training.tf32 has no effect on the device 'cpu'" in line for line in lines) == (choice == "true")
