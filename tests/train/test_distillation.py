"""A model that learns from another: the loss held to torch's and to differences, whole runs on every backend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.spec.errors import InputError
from unitrain.spec.losses import CrossEntropy
from unitrain.spec.pruning import DistillationSpec
from unitrain.train.distillation import DistilledCrossEntropy
from unitrain.train.fit import fit
from unitrain.train.losses import SoftmaxCrossEntropy
from unitrain.weights.store import load_tensors

XP = NumpyNamespace()
RECIPE = """\
name: digits
model:
  inputs: {image: {shape: [8, 8, 1]}}
  layers:
    - {type: flatten}
    - {type: dense, name: hidden, units: 24, activation: relu}
    - {type: dense, name: digit, units: 10}
data: {source: digits, split: {validation: 0.2, test: 0.2}}
loss: cross_entropy
optimizer: {type: adam, lr: 0.01}
metrics: [accuracy]
training: {epochs: 4, batch_size: 64}
deterministic: true
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "digits.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def teacher(recipe):
    return fit(recipe, out=recipe.parent / "teacher").folder.path


def drawn(seed=3, shape=(6, 5)):
    generator = np.random.default_rng(seed)
    logits, teacher = generator.normal(size=(2, *shape)) * 3.0
    classes = generator.integers(0, shape[-1], shape[:-1])
    return logits, np.concatenate([classes[..., None], teacher], axis=-1), generator.uniform(0.5, 2.0, shape[0])


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.3), (4.0, 0.7), (2.0, 1.0)])
@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5)])
def test_the_loss_is_that_of_torch(temperature, alpha, shape):
    x, target, _ = drawn(shape=shape)
    loss = DistilledCrossEntropy(
        SoftmaxCrossEntropy(CrossEntropy()), DistillationSpec(teacher="", temperature=temperature, alpha=alpha)
    )
    numerator, denominator = loss.terms(XP, x, target, None)
    logits = torch.tensor(x.reshape(-1, shape[-1]), requires_grad=True)
    flat = torch.tensor(target.reshape(-1, shape[-1] + 1))
    soft = functional.kl_div(
        functional.log_softmax(logits / temperature, -1),
        functional.softmax(flat[:, 1:] / temperature, -1),
        reduction="batchmean",
    )
    wanted = alpha * temperature**2 * soft + (1 - alpha) * functional.cross_entropy(logits, flat[:, 0].long())
    assert numerator / denominator == pytest.approx(wanted.item(), rel=1e-12)
    wanted.backward()
    gradient = loss.gradient(XP, x, target, None) / denominator
    np.testing.assert_allclose(gradient.reshape(logits.shape), logits.grad.numpy(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    "spec",
    [
        CrossEntropy(class_weights=(1.0, 2.0, 0.5, 1.0, 3.0)),
        CrossEntropy(ignore_index=2),
        CrossEntropy(label_smoothing=0.1),
    ],
)
def test_weights_and_ignored_classes_count_for_both_parts(spec):
    x, target, weight = drawn()
    loss = DistilledCrossEntropy(SoftmaxCrossEntropy(spec), DistillationSpec(teacher="", temperature=3.0, alpha=0.6))
    gradient = loss.gradient(XP, x, target, weight)
    step = 1e-6
    for place in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[place] = step
        up, down = (loss.terms(XP, x + sign * moved, target, weight)[0] for sign in (1, -1))
        assert gradient[place] == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-8)
    ignored = target[:, 0] == spec.ignore_index
    assert (gradient[ignored] == 0.0).all()


@pytest.mark.parametrize("backend", ["numpy", "torch", "keras"])
def test_a_model_learns_from_its_teacher_alone(recipe, teacher, tmp_path, backend):
    settings = [f"distillation={{teacher: {teacher}, alpha: 1.0}}", "seed=0"]
    end = fit(recipe, backend=backend, out=tmp_path / "run", overrides=settings).end
    assert end.test["accuracy"] > 0.85


def test_backends_learn_the_same(recipe, teacher, tmp_path):
    settings = [
        f"distillation={{teacher: {teacher}, temperature: 3}}",
        "training.max_steps=5",
        "optimizer={type: sgd, lr: 0.1}",
    ]
    weights = [
        load_tensors(fit(recipe, backend=backend, out=tmp_path / backend, overrides=settings).folder.weights)
        for backend in ("numpy", "torch", "keras")
    ]
    for other in weights[1:]:
        for name, array in weights[0].items():
            np.testing.assert_allclose(other[name], array, rtol=1e-4, atol=1e-6)


def test_without_a_share_of_the_loss_a_teacher_changes_nothing(recipe, teacher, tmp_path):
    taught = fit(recipe, out=tmp_path / "a", overrides=[f"distillation={{teacher: {teacher}, alpha: 0.0}}"])
    plain = fit(recipe, out=tmp_path / "b")
    one, two = load_tensors(taught.folder.weights), load_tensors(plain.folder.weights)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    history = [run.folder.history()[-1]["training"]["accuracy"] for run in (taught, plain)]
    assert history[0] == history[1]


@pytest.mark.parametrize("backend", ["numpy", "torch", "keras"])
def test_of_augmented_images_the_teacher_sees_what_the_model_sees(recipe, tmp_path, backend):
    augmented = ["data.augment=[{type: shift, height: 1, width: 1}]"]
    teacher = fit(recipe, out=tmp_path / "teacher", overrides=augmented).folder.path
    settings = [*augmented, f"distillation={{teacher: {teacher}, alpha: 1.0}}", "training.epochs=3"]
    end = fit(recipe, backend=backend, out=tmp_path / "run", overrides=settings).end
    assert end.test["accuracy"] > 0.7


# One number for each image, and its error.
MEANS = ["model.layers.2.units=1", "loss=mse", "metrics=[]"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["distillation.teacher=nowhere"], "no such run folder"),
        (["distillation={teacher: TEACHER, alpha: 2}"], "distillation.alpha"),
        (["distillation={teacher: TEACHER}", "data.pixels=none"], "prepared in another way"),
        (["distillation={teacher: TEACHER}", "model.layers.2.units=11"], "other outputs"),
        (["distillation={teacher: TEACHER}", *MEANS], "distillation softens classes"),
    ],
)
def test_mistakes_are_explained(recipe, teacher, tmp_path, settings, said):
    settings = [setting.replace("TEACHER", str(teacher)) for setting in settings]
    with pytest.raises(InputError, match=said):
        fit(recipe, out=tmp_path / "run", overrides=settings)
