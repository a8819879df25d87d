"""Losses and optimizers: classes move to the end, and one update is made from the state that the case gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_cases.node_case import Array, NodeCase, NotApplicable, Outputs

from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.spec.losses import CrossEntropy
from unitrain.spec.optimizers import Adagrad, Adam, Optimizer, Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update

XP = NumpyNamespace()

# The number of an update so late that 1 - beta^t is 1.
LATE = 10**6


def _classes_last(x: Array) -> Array:
    return np.moveaxis(x, 1, -1)


def _cross_entropy(case: NodeCase, logits: Array, weight: Array | None, shift: float = 0.0) -> Array:
    """Reduce the cross-entropy of logits ``[..., class]``, less ``shift``, as the case wants it."""
    target = case.need(1)
    spec = CrossEntropy(
        class_weights=None if weight is None else tuple(map(float, weight)),
        ignore_index=case.attributes.get("ignore_index"),
    )
    loss = make_loss(spec)

    def terms(x: Array, index: Array) -> tuple[Any, Any]:
        numerator, denominator = loss.terms(XP, x, index, None)
        return numerator - shift * denominator, denominator

    reduction = case.attributes.get("reduction", "mean")
    if reduction == "none":
        rows = zip(logits.reshape(-1, logits.shape[-1]), target.ravel(), strict=True)
        return np.array([terms(row[None], index[None])[0] for row, index in rows]).reshape(target.shape)
    numerator, denominator = terms(logits, target)
    return np.asarray(numerator if reduction == "sum" else numerator / denominator)


def softmax_cross_entropy(case: NodeCase) -> Outputs:
    logits = _classes_last(case.numbers(0))
    results: Outputs = [_cross_entropy(case, logits, case.given(2))]
    if len(case.outputs) == 2:
        results.append(np.moveaxis(XP.log_softmax(logits), -1, 1))
    return results


def negative_log_likelihood(case: NodeCase) -> Outputs:
    """On log-probabilities cross-entropy is the negative log-likelihood, for softmax changes nothing there.

    The cases' scores are none. Less a constant c they are the log-probabilities of all classes but one more, which
    takes what is left of 1 and is never the target; each loss is then larger by c. In float64, for c is subtracted.
    """
    scores, weight = _classes_last(case.numbers(0)).astype(np.float64), case.given(2)
    sums = np.exp(scores).sum(axis=-1, keepdims=True)
    shift = float(np.log(2.0 * sums.max()))
    rest = np.log(1.0 - sums * np.exp(-shift))
    logits = np.concatenate([scores - shift, rest], axis=-1)
    weight = None if weight is None else np.append(weight, 1.0)
    return [_cross_entropy(case, logits, weight, shift).astype(np.float32)]


def log_softmax_of_losses(case: NodeCase) -> Outputs:
    """The logarithm of softmax that the losses are built of runs over the last axis."""
    axis = case.attributes.get("axis", -1)
    return [np.moveaxis(XP.log_softmax(np.moveaxis(case.numbers(0), axis, -1)), -1, axis)]


def _update(case: NodeCase, spec: Optimizer, slots: tuple[str, ...], rate: float, first_update: int) -> Outputs:
    """Make one update of the parameters of the case, with its gradients and slots, which follow R and T in runs."""
    count = (len(case.inputs) - 2) // (2 + len(slots))
    names = [f"w{number}" for number in range(count)]
    runs = [
        {name: case.numbers(2 + run * count + place) for place, name in enumerate(names)}
        for run in range(2 + len(slots))
    ]
    updater = Update(spec, dict.fromkeys(names, True))
    assert updater.slots == slots
    coefficients = updater.coefficients(np.array([rate]), first_update)[0].astype(np.float32)
    state = dict(zip(slots, runs[2:], strict=True))
    parameters, new_state = updater.update(XP, runs[0], runs[1], state, list(coefficients))
    return [new[name] for new in (parameters, *(new_state[slot] for slot in slots)) for name in names]


def _shared(case: NodeCase) -> dict[str, Any]:
    """Return the penalty: ONNX adds norm_coefficient * w to the gradient, ours 2 * l2 * w."""
    return {"l2": case.attributes.get("norm_coefficient", 0.0) / 2.0}


def adam(case: NodeCase) -> Outputs:
    """ONNX's epsilon stands beside the uncorrected root, ours beside the corrected one; T = 0 means no correction."""
    if case.attributes.get("norm_coefficient_post", 0.0):
        raise NotApplicable("norm_coefficient_post shrinks the new weights; our decay takes from the old ones")
    beta1, beta2 = case.attributes.get("alpha", 0.9), case.attributes.get("beta", 0.999)
    count = int(case.need(1))
    root = (1.0 - beta2**count) ** 0.5 if count else 1.0
    epsilon = case.attributes.get("epsilon", 1e-6) / root
    spec = Adam(beta1=beta1, beta2=beta2, epsilon=epsilon, **_shared(case))
    return _update(case, spec, ("mean", "variance"), float(case.need(0)), count - 1 if count else LATE)


def adagrad(case: NodeCase) -> Outputs:
    """The decaying rate r / (1 + T * decay) is a schedule's work: it is passed in."""
    rate = float(case.need(0)) / (1.0 + float(case.need(1)) * case.attributes.get("decay_factor", 0.0))
    spec = Adagrad(epsilon=case.attributes.get("epsilon", 1e-6), **_shared(case))
    return _update(case, spec, ("sum_of_squares",), rate, 0)


def momentum(case: NodeCase) -> Outputs:
    if int(case.need(1)) and case.attributes["beta"] != 1.0:
        raise NotApplicable("beta dampens the gradient; ours takes it whole")
    nesterov = case.attributes["mode"] == "nesterov"
    spec = Sgd(momentum=case.attributes["alpha"], nesterov=nesterov, **_shared(case))
    return _update(case, spec, ("momentum",), float(case.need(0)), 0)
