"""`unitrain prune` as a user types it: on a run of real data, with what is printed and what the new run can do."""

from __future__ import annotations

import json

import numpy as np
import pytest

from unitrain.cli.main import main
from unitrain.spec.base import load_spec
from unitrain.spec.recipe import Recipe
from unitrain.train.fit import fit
from unitrain.train.inference import TrainedRun
from unitrain.weights.store import load_tensors

RECIPE = """\
name: digits
model:
  inputs: {image: {shape: [8, 8, 1]}}
  blocks:
    conv_norm:
      arguments: {filters: null}
      layers:
        - {type: conv2d, name: conv, filters: $filters, kernel_size: 3, strides: 2, padding: same, use_bias: false}
        - {type: batch_norm, name: norm}
        - {type: relu, name: relu}
  layers:
    - {type: block, name: first, block: conv_norm, arguments: {filters: 16}}
    - {type: block, name: second, block: conv_norm, arguments: {filters: 32}}
    - {type: flatten}
    - {type: dense, name: digit, units: 10}
data: {source: digits, split: {validation: 0.2, test: 0.2}}
loss: cross_entropy
optimizer: {type: adam, lr: 0.01}
metrics: [accuracy]
training: {epochs: 3, batch_size: 32}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    (folder / "digits.yaml").write_text(RECIPE)
    return fit(folder / "digits.yaml", out=folder / "run").folder.path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def accuracy(folder, backend="numpy"):
    return TrainedRun.open(folder, backend=backend).evaluate()[1]["accuracy"]


def test_channels_go_and_training_brings_most_back(trained, tmp_path, capsys):
    out = tmp_path / "small"
    code, shown, _ = run(capsys, "prune", trained, "--structured", 0.5, "--multiple", 8, "--finetune", 2, "--out", out)
    assert code == 0
    assert "first.conv" in shown
    assert "-50.0 %" in shown
    assert "digit: 10 channels stay: they are the output 'digit'" in shown
    weights = load_tensors(out / "weights.safetensors")
    assert weights["first.conv.kernel"].shape == (3, 3, 1, 8)
    assert weights["second.norm.running_mean"].shape == (16,)
    assert weights["digit.kernel"].shape == (2 * 2 * 16, 10)
    assert accuracy(out) > accuracy(trained) - 0.05
    recipe = load_spec(Recipe, out / "recipe.yaml")
    assert recipe.training.epochs == 2
    assert recipe.optimizer.lr == 0.01


def test_what_is_pruned_is_a_run_like_any_other(trained, tmp_path, capsys):
    out = tmp_path / "small"
    options = ("--structured", 0.25, "--multiple", 4, "--importance", "taylor", "--fold", "--json", "--out", out)
    code, shown, _ = run(capsys, "prune", trained, *options)
    result = json.loads(shown)
    assert code == 0
    assert [group["after"] for group in result["groups"]] == [12, 24]
    assert result["after"]["macs"] < 0.8 * result["before"]["macs"]
    assert result["values"]["pruned"]["accuracy"] == pytest.approx(accuracy(out))
    assert result["values"]["before"]["accuracy"] == pytest.approx(accuracy(trained))
    assert not [name for name in load_tensors(out / "weights.safetensors") if "norm" in name]
    assert accuracy(out, "torch") == pytest.approx(accuracy(out, "onnx")) == pytest.approx(accuracy(out), abs=0.005)
    assert run(capsys, "export", out, "--to", "onnx", "--out", tmp_path / "small.onnx")[0] == 0
    assert run(capsys, "fit", "--resume", out, "--epochs", 1, "--quiet")[0] == 0
    assert json.loads((out / "result.json").read_text())["reason"] == "finished"


def test_the_model_as_it_was_teaches(trained, tmp_path, capsys):
    out = tmp_path / "taught"
    options = ("--structured", 0.5, "--multiple", 8, "--finetune", 2, "--distill", "--lr", 0.003, "--out", out)
    assert run(capsys, "prune", trained, *options)[0] == 0
    recipe = load_spec(Recipe, out / "recipe.yaml")
    assert recipe.distillation.teacher == str(trained)
    assert recipe.optimizer.lr == 0.003
    assert accuracy(out) > accuracy(trained) - 0.05


@pytest.mark.parametrize("backend", ["numpy", "torch", "keras"])
def test_zeros_stay_zeros_in_fine_tuning(trained, tmp_path, capsys, backend):
    out = tmp_path / "sparse"
    options = ("--sparsity", 0.8, "--global", "--finetune", 1, "--backend", backend, "--out", out)
    code, shown, _ = run(capsys, "prune", trained, *options)
    assert code == 0
    assert "kernel" in shown
    names = ("first.conv.kernel", "second.conv.kernel", "digit.kernel")
    kernels = [load_tensors(out / "weights.safetensors")[name] for name in names]
    size = sum(kernel.size for kernel in kernels)
    assert sum(np.count_nonzero(kernel) for kernel in kernels) == size - round(0.8 * size)


def test_two_of_four(trained, tmp_path, capsys):
    code, shown, _ = run(capsys, "prune", trained, "--pattern", "2:4", "--out", tmp_path / "two")
    assert code == 0
    assert "first.conv.kernel stays: its 1 input channels are no multiple of 4" in shown
    kernel = load_tensors(tmp_path / "two/weights.safetensors")["second.conv.kernel"]
    assert (np.count_nonzero(kernel.reshape(3, 3, 4, 4, 32), axis=3) == 2).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "nothing is to be done"),
        (("--structured", 1.5), "0 <= ratio < 1"),
        (("--sparsity", -1), "0 to 1"),
        (("--pattern", "4:2"), "2:4"),
        (("--pattern", "2:4", "--sparsity", 0.5), "--sparsity or --pattern"),
        (("--structured", 0.5, "--importance", "tailor"), "did you mean 'taylor'"),
        (("--structured", 0.5, "--finetune", 0), "an epoch or more"),
        (("--structured", 0.5, "--distill"), "--finetune EPOCHS"),
        (("--structured", 0.5, "--finetune", 1, "--lr", -0.1), "a learning rate is positive"),
    ],
)
def test_mistakes_are_explained(trained, tmp_path, capsys, options, said):
    code, _, errors = run(capsys, "prune", trained, *options, "--out", tmp_path / "out")
    assert code == 2
    assert said in errors
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    code, _, errors = run(capsys, "prune", tmp_path / "nowhere", "--structured", 0.5)
    assert code == 2
    assert "no such run folder" in errors


def test_without_its_data_a_run_is_pruned_and_not_measured(tmp_path, capsys):
    recipe = RECIPE.replace(
        "source: digits", "source: {type: npz, file: digits.npz, inputs: {image: image}, targets: {digit: digit}}"
    )
    from sklearn.datasets import load_digits

    images, digits = load_digits().images[:200, ..., None].astype(np.float32), load_digits().target[:200]
    np.savez(tmp_path / "digits.npz", image=images, digit=digits)
    (tmp_path / "digits.yaml").write_text(recipe)
    fit(tmp_path / "digits.yaml", out=tmp_path / "run", overrides=["training.epochs=1"])
    (tmp_path / "digits.npz").unlink()
    code, shown, errors = run(capsys, "prune", tmp_path / "run", "--structured", 0.5, "--out", tmp_path / "small")
    assert code == 0, errors
    assert "nothing is measured" in shown
    assert (tmp_path / "small/weights.safetensors").is_file()
