"""The known differences of losses, tried on the probe that trains a table of predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.backends.rule import LossFunction, TrainingRule
from unitrain.spec.losses import Loss
from unitrain.train.losses import make_loss
from unitrain.verify.diagnosis.fields import alternatives, show
from unitrain.verify.diagnosis.patterns import describe_tensors
from unitrain.verify.experiments.steps import Steps
from unitrain.verify.findings import TensorName
from unitrain.verify.runner import Array, Runner
from unitrain.verify.verdict import judge

Terms = tuple[Tensor, Tensor]


def explain_loss(steps: Steps, loss: Loss, found: Mapping[TensorName, Array], reference: Runner, narrow: Runner) -> str:
    """Return the difference that explains what a backend's loss did, or nothing.

    Parameters
    ----------
    steps
        The probe, begun.
    loss
        What the spec says.
    found
        What the backend computed on it.
    reference, narrow
        NumPy in float64 and float32.
    """
    ((output, (factor, _)),) = steps.rule.losses.items()
    for number, (text, meaning) in enumerate(_meanings(loss, factor)):
        rule = TrainingRule({output: (1.0, meaning)}, (), steps.rule.updater)
        changed = replace(steps, rule=rule, key=f"{steps.key} meaning {number}")
        wide, single = changed.tensors(reference), changed.tensors(narrow)
        if all(
            name in wide and judge(array, wide[name], single[name], growth=name.growth).passed
            for name, array in found.items()
        ):
            return text
    right, yardstick = steps.tensors(reference), steps.tensors(narrow)
    wrong = [name for name in found if not judge(found[name], right[name], yardstick[name]).passed]
    text = describe_tensors([(found[name].astype(np.float64), right[name]) for name in wrong]) if wrong else ""
    labels = {"gradient" if name.tensor.startswith("change") else "loss" for name in wrong}
    return f"{' and '.join(sorted(labels))}: {text}" if text else ""


def explain_losses(steps: Steps, found: Mapping[TensorName, Array], reference: Runner, narrow: Runner) -> str:
    """Say, for each output whose part in the loss is wrong, what became of its gradient."""
    right, yardstick = steps.tensors(reference), steps.tensors(narrow)
    outputs = {table: output for output, table in steps.graph.outputs.items()}
    texts = []
    for name, array in found.items():
        if not judge(array, right[name], yardstick[name]).passed:
            output = outputs[name.tensor.removeprefix("change of ").partition(".")[0]]
            text = describe_tensors([(array.astype(np.float64), right[name])])
            texts.append(f"the gradient by '{output}' is {text or 'another'}")
    return "; ".join(texts)


def _meanings(loss: Loss, factor: float) -> Iterator[tuple[str, LossFunction]]:
    if loss.type == "huber":
        delta, right = float(loss.delta), make_loss(loss)
        yield f"is smooth L1, Huber over delta: 1/{show(delta)} of the spec's", Wrapped(right, factor / delta)
    for text, changed in alternatives(loss):
        yield text, Wrapped(make_loss(changed), factor)  # type: ignore[arg-type]  # of the same class
    right = make_loss(loss)
    yield (
        "is divided by the number of samples, where the spec divides by the sum of their weights",
        ByCount(right, factor),
    )
    yield "is a sum over the batch, where the spec has the mean", Sum(right, factor)
    yield "leaves the weights of the samples out", Unweighted(right, factor)
    if factor != 1.0:
        yield f"leaves the factor {show(factor)} out", Wrapped(right, 1.0)
    for scale in (0.5, 2.0):
        yield f"is {scale:g} times the spec's", Wrapped(right, factor * scale)
    for text, formula in _FORMULAS.get(loss.type, ()):
        yield text, Formula(right, factor, formula)


@dataclass(frozen=True)
class Wrapped:
    """A loss times a factor."""

    loss: LossFunction
    factor: float

    def terms(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Terms:
        """Return numerator and denominator."""
        numerator, denominator = self.loss.terms(xp, prediction, target, weight)
        return numerator * self.factor, denominator

    def gradient(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return the gradient of the numerator."""
        return self.loss.gradient(xp, prediction, target, weight) * self.factor


class ByCount(Wrapped):
    """Divided by the number of elements that have a loss."""

    def terms(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Terms:
        """Return the weighted numerator and the count."""
        numerator, _ = super().terms(xp, prediction, target, weight)
        _, count = make_plain(self.loss).terms(xp, prediction, target, None)
        return numerator, count


class Sum(Wrapped):
    """Not divided."""

    def terms(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Terms:
        """Return the numerator and 1."""
        numerator, denominator = super().terms(xp, prediction, target, weight)
        return numerator, xp.ones_like(denominator)


class Unweighted(Wrapped):
    """Without the samples' weights."""

    def terms(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Terms:
        """Return the terms of equal weights."""
        return super().terms(xp, prediction, target, None)

    def gradient(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return the gradient of equal weights."""
        return super().gradient(xp, prediction, target, None)


def make_plain(loss: LossFunction) -> LossFunction:
    """Return the same loss without class weights and ignored classes, which counts every element as one."""
    spec = getattr(loss, "spec", None)
    if spec is None:
        return loss
    fields = {name: None for name in ("class_weights", "ignore_index") if hasattr(spec, name)}
    return make_loss(spec.model_copy(update=fields))


@dataclass(frozen=True)
class Formula:
    """Another formula: the loss of each element, and its gradient, times a factor.

    ``formula(xp, spec, prediction, target) -> (losses, gradients)``; losses in the shape of the weights.
    """

    loss: Any
    factor: float
    formula: Callable[..., tuple[Tensor, Tensor]]

    def terms(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Terms:
        """Return numerator and denominator, weighted as the right loss is."""
        _, denominator = self.loss.terms(xp, prediction, target, weight)
        losses, _ = self.formula(xp, getattr(self.loss, "spec", None), prediction, target)
        return xp.sum(self._weights(xp, losses, weight) * losses) * self.factor, denominator

    def gradient(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return the gradient of the numerator."""
        losses, gradient = self.formula(xp, getattr(self.loss, "spec", None), prediction, target)
        weights = self._weights(xp, losses, weight)
        return (weights if weights.ndim == gradient.ndim else weights[..., None]) * gradient * self.factor

    def _weights(self, xp: ArrayNamespace, losses: Tensor, weight: Tensor | None) -> Tensor:
        ones = xp.ones_like(losses)
        return ones if weight is None else ones * xp.reshape(weight, (-1, *(1,) * (losses.ndim - 1)))


def _softmax(xp: ArrayNamespace, x: Tensor) -> Tensor:
    powers = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def _smoothed(xp: ArrayNamespace, spec: Any, x: Tensor, target: Tensor, others: float) -> Tensor:
    classes = int(x.shape[-1])
    one_hot = xp.one_hot(xp.reshape(target, x.shape[:-1]), classes, x)
    s = spec.label_smoothing
    return one_hot * (1.0 - s) + (s / classes if others == 0.0 else (1.0 - one_hot) * s / others)


def _of_probabilities(xp: ArrayNamespace, spec: Any, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of probabilities clipped at 1e-7, as frameworks take it after a softmax."""
    q, p = _smoothed(xp, spec, x, target, 0.0), _softmax(xp, x)
    clipped = xp.clip(p, 1e-7, 1.0 - 1e-7)
    inside = xp.cast(p == clipped, x)
    by_p = -q / clipped * inside
    return -xp.sum(q * xp.log(clipped), axis=-1), p * (by_p - xp.sum(by_p * p, axis=-1, keepdims=True))


def _softmax_twice(xp: ArrayNamespace, spec: Any, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    q, p = _smoothed(xp, spec, x, target, 0.0), _softmax(xp, x)
    twice = _softmax(xp, p)
    by_p = twice - q
    return -xp.sum(q * xp.log(twice), axis=-1), p * (by_p - xp.sum(by_p * p, axis=-1, keepdims=True))


def _smoothed_over_others(xp: ArrayNamespace, spec: Any, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    q, p = _smoothed(xp, spec, x, target, int(x.shape[-1]) - 1.0), _softmax(xp, x)
    return -xp.sum(q * xp.log(p), axis=-1), p - q


def _binary_of_probabilities(xp: ArrayNamespace, spec: Any, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    y = xp.reshape(xp.cast(target, x), x.shape)
    s = spec.label_smoothing
    y = y * (1.0 - s) + 0.5 * s
    p = 1.0 / (1.0 + xp.exp(-x))
    clipped = xp.clip(p, 1e-7, 1.0 - 1e-7)
    inside = xp.cast(p == clipped, x)
    gradient = (clipped - y) / (clipped * (1.0 - clipped)) * p * (1.0 - p) * inside
    return -(y * xp.log(clipped) + (1.0 - y) * xp.log(1.0 - clipped)), gradient


def _squared(xp: ArrayNamespace, spec: Any, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    error = x - xp.reshape(xp.cast(target, x), x.shape)
    return error * error, 2.0 * error


def _absolute(xp: ArrayNamespace, spec: Any, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    error = x - xp.reshape(xp.cast(target, x), x.shape)
    return xp.abs(error), xp.sign(error)


def _kl_mean(xp: ArrayNamespace, spec: Any, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    p, classes = xp.reshape(xp.cast(target, x), x.shape), int(x.shape[-1])
    softmax = _softmax(xp, x)
    entropy = p * xp.log(xp.where(p > 0.0, p, xp.ones_like(p)))
    losses = xp.sum(entropy - p * xp.log(softmax), axis=-1) / classes
    return losses, (softmax * xp.sum(p, axis=-1, keepdims=True) - p) / classes


def _cross_of_distributions(xp: ArrayNamespace, spec: Any, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    p, softmax = xp.reshape(xp.cast(target, x), x.shape), _softmax(xp, x)
    return -xp.sum(p * xp.log(softmax), axis=-1), softmax * xp.sum(p, axis=-1, keepdims=True) - p


def _kl_reversed(xp: ArrayNamespace, spec: Any, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    p, q = xp.reshape(xp.cast(target, x), x.shape), _softmax(xp, x)
    ratio = xp.log(q) - xp.log(p)
    losses = xp.sum(q * ratio, axis=-1)
    return losses, q * (ratio - losses[..., None])


_FORMULAS: dict[str, tuple[tuple[str, Callable[..., tuple[Tensor, Tensor]]], ...]] = {
    "cross_entropy": (
        ("is taken from softmax probabilities clipped at 1e-7 (Keras), where the spec takes logits", _of_probabilities),
        ("takes the softmax twice: it is given probabilities for logits", _softmax_twice),
        ("spreads label smoothing over the other classes only, s / (K - 1)", _smoothed_over_others),
    ),
    "binary_cross_entropy": (
        ("is taken from probabilities clipped at 1e-7 (Keras), where the spec takes logits", _binary_of_probabilities),
    ),
    "mse": (("is the mean absolute error", _absolute),),
    "mae": (("is the mean squared error", _squared),),
    "huber": (("is the mean squared error", _squared), ("is the mean absolute error", _absolute)),
    "kl_divergence": (
        ("is the mean over classes too (reduction='mean'), where the spec sums over classes", _kl_mean),
        ("is the cross-entropy, without the targets' own entropy", _cross_of_distributions),
        ("is KL(prediction || target), the other way round", _kl_reversed),
    ),
}
