"""Losses against torch in float64, closed forms where torch means something else, and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as functional
from scipy.special import expit, log_softmax

from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.backends.torch.namespace import TorchNamespace
from unitrain.spec.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    KlDivergence,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
)
from unitrain.train.losses import make_loss, sigmoid

Array = npt.NDArray[Any]

BATCH, CLASSES, IGNORED = 7, 4, 2
CLASS_WEIGHTS = (0.5, 2.0, 0.0, 1.25)
NUMPY, TORCH = NumpyNamespace(), TorchNamespace()

LOSSES: dict[str, Loss] = {
    "cross_entropy": CrossEntropy(),
    "cross_entropy-weights": CrossEntropy(class_weights=CLASS_WEIGHTS),
    "cross_entropy-smoothing": CrossEntropy(label_smoothing=0.1),
    "cross_entropy-ignore": CrossEntropy(ignore_index=IGNORED),
    "cross_entropy-ignore-outside": CrossEntropy(ignore_index=-100),
    "cross_entropy-all": CrossEntropy(class_weights=CLASS_WEIGHTS, label_smoothing=0.2, ignore_index=0),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "binary_cross_entropy-weights": BinaryCrossEntropy(class_weights=(0.3, 1.7)),
    "binary_cross_entropy-all": BinaryCrossEntropy(class_weights=(2.0, 0.5), label_smoothing=0.2),
    "mse": MeanSquaredError(),
    "mae": MeanAbsoluteError(),
    "huber": Huber(),
    "huber-narrow": Huber(delta=0.25),
    "kl_divergence": KlDivergence(),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
weighted = pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])


def example(spec: Loss, seed: int = 0, elements: tuple[int, ...] = ()) -> tuple[Array, Array, Array]:
    """Predictions ``[batch, *elements, class]``, targets, and sample weights (one of them 0)."""
    rng = np.random.default_rng(seed)
    shape = (BATCH, *elements, CLASSES)
    prediction = rng.normal(0.0, 2.0, shape)
    weight = rng.uniform(0.1, 3.0, BATCH)
    weight[1] = 0.0
    target: Array
    match spec:
        case CrossEntropy():
            target = rng.integers(0, CLASSES, shape[:-1]).astype(np.int32)
            if spec.ignore_index == -100:
                target[::3] = -100
        case BinaryCrossEntropy():
            target = rng.integers(0, 2, shape).astype(np.int32)
        case KlDivergence():
            target = rng.dirichlet(np.ones(CLASSES), shape[:-1])
            target[0] = np.eye(CLASSES)[1]
        case _:
            target = rng.normal(0.0, 2.0, shape)
    return prediction, target, weight


def mean(spec: Loss, prediction: Array, target: Array, weight: Array | None = None) -> float:
    """The loss of a batch, as `rule.LossFunction` defines it."""
    numerator, denominator = make_loss(spec).terms(NUMPY, prediction, target, weight)
    return float(numerator / denominator) if denominator else 0.0


def torch_elements(spec: Loss, prediction: Array, target: Array) -> tuple[Array, Array]:
    """Losses one by one, and their weights without the samples', from torch.nn.functional in float64."""
    x, y = torch.tensor(prediction), torch.tensor(target)
    weights = np.ones(target.shape)
    match spec:
        case CrossEntropy():
            classes_first = x.movedim(-1, 1)
            clamped = y.long().clamp(0, CLASSES - 1)
            losses = functional.cross_entropy(
                classes_first, clamped, reduction="none", label_smoothing=spec.label_smoothing
            )
            if spec.class_weights is not None:
                weights = np.array(spec.class_weights)[clamped.numpy()]
            if spec.ignore_index is not None:
                weights = weights * (target != spec.ignore_index)
        case BinaryCrossEntropy():
            smoothed = y.double() * (1.0 - spec.label_smoothing) + spec.label_smoothing / 2
            losses = functional.binary_cross_entropy_with_logits(x, smoothed, reduction="none")
            if spec.class_weights is not None:
                weights = np.array(spec.class_weights)[target]
        case MeanSquaredError():
            losses = functional.mse_loss(x, y, reduction="none")
        case MeanAbsoluteError():
            losses = functional.l1_loss(x, y, reduction="none")
        case Huber():
            losses = functional.huber_loss(x, y, reduction="none", delta=spec.delta)
        case KlDivergence():
            losses = functional.kl_div(functional.log_softmax(x, -1), y, reduction="none").sum(-1)
            weights = np.ones(losses.shape)
    return losses.numpy(), weights


@every_loss
@weighted
@pytest.mark.parametrize("elements", [(), (3, 2)], ids=["flat", "spatial"])
def test_mean_is_torch_losses_weighted(name: str, weighted: bool, elements: tuple[int, ...]) -> None:
    spec = LOSSES[name]
    prediction, target, weight = example(spec, elements=elements)
    losses, weights = torch_elements(spec, prediction, target)
    if weighted:
        weights = weights * weight.reshape(-1, *(1,) * (weights.ndim - 1))
    expected = np.sum(losses * weights) / np.sum(weights)
    assert mean(spec, prediction, target, weight if weighted else None) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    "options", [{}, {"class_weights": CLASS_WEIGHTS}, {"ignore_index": 2}, {"label_smoothing": 0.3}]
)
def test_cross_entropy_is_torch_mean(options: dict[str, Any]) -> None:
    spec = CrossEntropy(**options)
    prediction, target, _ = example(spec)
    torch_options = {"weight" if key == "class_weights" else key: value for key, value in options.items()}
    if "weight" in torch_options:
        torch_options["weight"] = torch.tensor(CLASS_WEIGHTS, dtype=torch.float64)
    expected = functional.cross_entropy(torch.tensor(prediction), torch.tensor(target).long(), **torch_options)
    assert mean(spec, prediction, target) == pytest.approx(float(expected), rel=1e-13)


def test_kl_divergence_is_torch_batchmean() -> None:
    prediction, target, _ = example(KlDivergence())
    logs = functional.log_softmax(torch.tensor(prediction), -1)
    expected = float(functional.kl_div(logs, torch.tensor(target), reduction="batchmean"))
    assert mean(KlDivergence(), prediction, target) == pytest.approx(expected, rel=1e-13)


def test_smoothing_with_class_weights_weighs_each_sample_by_its_class() -> None:
    s, prediction, target = 0.2, np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]), np.array([2, 0], np.int32)
    spec = CrossEntropy(class_weights=(3.0, 1.0, 0.5), label_smoothing=s)
    logs = log_softmax(prediction, axis=-1)
    own = np.array([-(1 - s) * logs[0, 2] - s / 3 * logs[0].sum(), -(1 - s) * logs[1, 0] - s / 3 * logs[1].sum()])
    assert mean(spec, prediction, target) == pytest.approx((0.5 * own[0] + 3.0 * own[1]) / 3.5, rel=1e-14)


def test_binary_smoothing_moves_targets_towards_a_half() -> None:
    x, s = np.array([[0.7], [-1.3]]), 0.4
    p = expit(x[:, 0])
    expected = -(np.array([0.8, 0.2]) * np.log(p) + np.array([0.2, 0.8]) * np.log(1 - p)).mean()
    assert mean(BinaryCrossEntropy(label_smoothing=s), x, np.array([1, 0])) == pytest.approx(expected, rel=1e-14)


def test_everything_ignored_counts_nothing() -> None:
    loss = make_loss(CrossEntropy(ignore_index=1, label_smoothing=0.1))
    prediction, target = example(CrossEntropy())[0], np.ones(BATCH, np.int32)
    assert loss.terms(NUMPY, prediction, target, None) == (0.0, 0.0)
    assert not loss.gradient(NUMPY, prediction, target, None).any()


@every_loss
@weighted
def test_gradient_is_central_difference(name: str, weighted: bool) -> None:
    spec = LOSSES[name]
    loss = make_loss(spec)
    prediction, target, weight = example(spec, seed=1, elements=(2,))
    given = weight if weighted else None
    step, expected = 1e-6, np.zeros_like(prediction)
    for place in np.ndindex(prediction.shape):
        moved = [prediction.copy(), prediction.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        above, below = (loss.terms(NUMPY, each, target, given)[0] for each in moved)
        expected[place] = (above - below) / (2 * step)
    np.testing.assert_allclose(loss.gradient(NUMPY, prediction, target, given), expected, rtol=1e-6, atol=5e-8)


@every_loss
@weighted
def test_gradient_is_torch_autograd(name: str, weighted: bool) -> None:
    spec = LOSSES[name]
    loss = make_loss(spec)
    prediction, target, weight = example(spec, seed=2, elements=(2,))
    x = torch.tensor(prediction, requires_grad=True)
    arguments = (torch.tensor(target), torch.tensor(weight) if weighted else None)
    loss.terms(TORCH, x, *arguments)[0].backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert x.grad is not None
    by_hand = loss.gradient(TORCH, x.detach(), *arguments)
    np.testing.assert_allclose(by_hand, x.grad, rtol=1e-12, atol=1e-14)
    in_numpy = loss.gradient(NUMPY, prediction, target, weight if weighted else None)
    np.testing.assert_allclose(in_numpy, x.grad, rtol=1e-12, atol=1e-14)


@every_loss
def test_tensorflow_gives_the_same(name: str) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is optional")
    from unitrain.backends.keras.namespace import TensorFlowNamespace

    spec = LOSSES[name]
    loss, xp = make_loss(spec), TensorFlowNamespace()
    prediction, target, weight = example(spec, seed=3, elements=(2,))
    x, y, w = tf.constant(prediction), tf.constant(target), tf.constant(weight)
    with tf.GradientTape() as tape:
        tape.watch(x)
        numerator, denominator = loss.terms(xp, x, y, w)
    expected = loss.terms(NUMPY, prediction, target, weight)
    np.testing.assert_allclose([float(numerator), float(denominator)], expected, rtol=1e-13)
    np.testing.assert_allclose(loss.gradient(xp, x, y, w), tape.gradient(numerator, x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_loss
def test_huge_predictions_stay_finite(name: str, dtype: type[np.floating[Any]]) -> None:
    spec = LOSSES[name]
    loss = make_loss(spec)
    _, target, weight = example(spec)
    prediction = np.where(np.arange(BATCH * CLASSES).reshape(BATCH, CLASSES) % 3 == 0, 1000.0, -1000.0).astype(dtype)
    for xp, convert in ((NUMPY, np.asarray), (TORCH, torch.tensor)):
        arguments = (convert(prediction), convert(target), convert(weight))
        assert np.isfinite(np.array([float(term) for term in loss.terms(xp, *arguments)])).all()
        assert np.isfinite(np.asarray(loss.gradient(xp, *arguments))).all()


def test_losses_of_sure_and_wrong_logits_are_their_size() -> None:
    assert mean(CrossEntropy(), np.array([[1000.0, -1000.0]]), np.array([1], np.int32)) == 2000.0
    assert mean(BinaryCrossEntropy(), np.array([[1000.0], [-1000.0]]), np.array([0, 1])) == 1000.0
    assert mean(BinaryCrossEntropy(), np.array([[1000.0], [-1000.0]]), np.array([1, 0])) == 0.0


def test_sigmoid_keeps_its_relative_precision() -> None:
    x = np.linspace(-80.0, 80.0, 999, dtype=np.float32)
    np.testing.assert_allclose(sigmoid(NUMPY, x), expit(x.astype(np.float64)), rtol=5e-7)


@every_loss
def test_float32_stays_float32(name: str) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is optional")
    from unitrain.backends.keras.namespace import TensorFlowNamespace

    spec = LOSSES[name]
    prediction, target, weight = example(spec)
    # Weights and targets may be wider than the prediction: its dtype is the one that counts.
    for xp, convert, dtype in (
        (NUMPY, np.asarray, np.float32),
        (TORCH, torch.tensor, torch.float32),
        (TensorFlowNamespace(), tf.constant, tf.float32),
    ):
        arguments = (convert(prediction.astype(np.float32)), convert(target), convert(weight))
        loss = make_loss(spec)
        results = [*loss.terms(xp, *arguments), loss.gradient(xp, *arguments)]
        assert [result.dtype for result in results] == [dtype] * 3


@pytest.mark.parametrize("spec", [BinaryCrossEntropy(), MeanSquaredError(), MeanAbsoluteError(), Huber()])
def test_target_without_the_axis_of_one_does_not_spread(spec: Loss) -> None:
    x, y = np.array([[0.5], [-1.0], [2.0]]), np.array([1.0, 0.0, 1.0])
    assert mean(spec, x, y) == mean(spec, x, y[:, None]) == mean(spec, x[:, 0], y[:, None])
    assert make_loss(spec).terms(NUMPY, x, y, None)[1] == 3.0
    assert make_loss(spec).gradient(NUMPY, x, y, None).shape == (3, 1)


@every_loss
def test_shapes_that_do_not_fit_raise(name: str) -> None:
    loss = make_loss(LOSSES[name])
    prediction = np.zeros((6, 3, 3, CLASSES))
    wrong: list[tuple[int, ...]]
    if isinstance(LOSSES[name], CrossEntropy):
        wrong = [(6,), (3,), (6, 3), (2, 3, 9), (6, 9), (6, 3, 3, CLASSES), (5, 3, 3)]
    else:
        wrong = [(6,), (CLASSES,), (6, 3, 3), (6, 3, CLASSES, 3), (6, 9, CLASSES), (1, 3, 3, CLASSES)]
    for shape in wrong:
        target = np.zeros(shape, np.int32)
        for call in (loss.terms, loss.gradient):
            with pytest.raises(ValueError, match=r"do not fit"):
                call(NUMPY, prediction, target, None)


def test_class_weights_must_be_one_a_class() -> None:
    loss = make_loss(CrossEntropy(class_weights=(2.0,)))
    with pytest.raises(ValueError, match=r"class_weights"):
        loss.terms(NUMPY, np.zeros((3, CLASSES)), np.zeros(3, np.int32), None)


def test_errors_at_a_kink_have_the_pinned_derivative() -> None:
    x, y = np.array([[1.0, 3.0, -3.0]]), np.array([[1.0, 1.0, -1.0]])
    assert make_loss(MeanAbsoluteError()).gradient(NUMPY, x, y, None).tolist() == [[0.0, 1.0, -1.0]]
    assert make_loss(Huber(delta=2.0)).gradient(NUMPY, x, y, None).tolist() == [[0.0, 2.0, -2.0]]
