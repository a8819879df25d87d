"""Faults of optimizers, losses, and of what lies between weights and files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from faults.layer_faults import ROW, row_net
from faults.planting import Fault, Plant, attribute, other_loss, other_rule, other_updater

from unitrain.backends.rule import TrainingRule
from unitrain.backends.torch.module import GraphModule
from unitrain.backends.torch.program import TorchProgram
from unitrain.spec.optimizers import Adagrad, Adam, AdamW, Lion, Nadam, Optimizer, RmsProp, Sgd
from unitrain.train.update import Update

HIDDEN = {"type": "tanh", "name": "act"}


class _Wrong(Update):
    """An update with another rule: ``formula(self, xp, g, state, scalars, w) -> (change, new state)``."""

    def __init__(self, right: Update, formula: Callable[..., Any]) -> None:
        super().__init__(right.spec, right.decays)
        self.formula = formula

    def update(self, xp: Any, parameters: Any, gradients: Any, slots: Any, coefficients: Any) -> Any:
        new: dict[str, Any] = {}
        state: dict[str, dict[str, Any]] = {slot: {} for slot in self.slots}
        for name, w in parameters.items():
            old = {slot: slots[slot][name] for slot in self.slots}
            change, kept = self.formula(self, xp, gradients[name], old, list(coefficients[1:]), w)
            new[name] = w + change
            for slot in self.slots:
                state[slot][name] = kept[slot]
        return new, state


def optimizer_fault(
    name: str, row: str, optimizer: Optimizer, words: str, make: Callable[[Update], Any], **more: Any
) -> Fault:
    """A fault in the optimizer of torch, or of the ``backend`` named."""
    backend = more.pop("backend", "torch")
    plant = other_updater(backend, optimizer, make)
    return Fault(name, row, backend, row_net(HIDDEN), ROW, "optimizer", words, plant, optimizer=optimizer, **more)


def formula_fault(name: str, row: str, optimizer: Optimizer, words: str, formula: Any, **more: Any) -> Fault:
    """A fault in the rule of torch's optimizer."""
    return optimizer_fault(name, row, optimizer, words, lambda right: _Wrong(right, formula), **more)


def spec_fault(name: str, row: str, optimizer: Optimizer, words: str, **fields: Any) -> Fault:
    """torch trains with other numbers than the recipe's."""
    values = {field: getattr(optimizer, field) for field in type(optimizer).model_fields}

    def make(right: Update) -> Update:
        wrong = type(optimizer).model_validate({**values, **fields})
        return Update(wrong, {key: key.startswith("kernel") or key.endswith("kernel") for key in right.decays})

    return optimizer_fault(name, row, optimizer, words, make)


def _keras_adam(self: Any, xp: Any, g: Any, s: Any, c: Any, w: Any) -> Any:
    m = self.spec.beta1 * s["mean"] + (1 - self.spec.beta1) * g
    v = self.spec.beta2 * s["variance"] + (1 - self.spec.beta2) * g * g
    rate, root = c
    return -rate / root * m / (xp.sqrt(v) + 1e-7), {"mean": m, "variance": v}


def _inside(self: Any, xp: Any, g: Any, s: Any, c: Any, w: Any) -> Any:
    v = self.spec.decay * s["variance"] + (1 - self.spec.decay) * g * g
    return -c[0] * g / xp.sqrt(v + self.spec.epsilon), {"variance": v}


def _adagrad_inside(self: Any, xp: Any, g: Any, s: Any, c: Any, w: Any) -> Any:
    a = s["sum_of_squares"] + g * g
    return -c[0] * g / xp.sqrt(a + self.spec.epsilon), {"sum_of_squares": a}


def _rate_inside(self: Any, xp: Any, g: Any, s: Any, c: Any, w: Any) -> Any:
    b = self.spec.momentum * s["momentum"] - c[0] * g
    return b, {"momentum": b}


def _dampened(self: Any, xp: Any, g: Any, s: Any, c: Any, w: Any) -> Any:
    b = self.spec.momentum * s["momentum"] + (1 - self.spec.momentum) * g
    return -c[0] * b, {"momentum": b}


def _lion(self: Any, xp: Any, g: Any, s: Any, c: Any, w: Any) -> Any:
    m = self.spec.beta2 * s["momentum"] + (1 - self.spec.beta2) * g
    return -c[0] * xp.sign(m), {"momentum": m}


def other_coefficients(change: Callable[[Any, Any], Any]) -> Plant:
    """torch takes other scalars than it is handed: ``change(program, rows)``."""

    def plant() -> Any:
        right = TorchProgram.run_steps

        def wrong(self: Any, placed: Any, plan: Any) -> Any:
            return right(self, placed, replace(plan, coefficients=change(self, plan.coefficients.copy())))

        return attribute(TorchProgram, "run_steps", wrong)

    return plant


def coefficient_fault(name: str, row: str, optimizer: Optimizer, words: str, change: Any) -> Fault:
    """A fault in the numbers that torch makes of the step's number and the learning rate."""
    layers = row_net(HIDDEN)
    return Fault(name, row, "torch", layers, ROW, "optimizer", words, other_coefficients(change), optimizer=optimizer)


def _probed(change: Any) -> Any:
    """Change the rows of the recipe's optimizer, which has more scalars than the probes' gradient descent."""
    return lambda program, rows: change(rows) if rows.shape[1] > 2 else rows


def _uncorrected(rows: Any) -> Any:
    t = np.round(np.log(1 - 1 / rows[:, 2] ** 2) / np.log(0.999))
    return np.stack([rows[:, 0], rows[:, 1] * (1 - 0.9**t), np.ones(len(rows))], axis=1)


def _late_correction(rows: Any) -> Any:
    t = np.round(np.log(1 - 1 / rows[:, 2] ** 2) / np.log(0.999))
    rate, late = rows[:, 1] * (1 - 0.9**t), np.maximum(t - 1, 1)
    return np.stack([rows[:, 0], rate / (1 - 0.9**late), 1 / np.sqrt(1 - 0.999**late)], axis=1)


def _steep_schedule(rows: Any) -> Any:
    t = np.round(np.log(1 - 1 / rows[:, 3] ** 2) / np.log(0.999)).astype(int)
    mild, steep = (lambda step: 0.9 * (1 - 0.5 * 0.96 ** (0.004 * step))), (lambda step: 0.9 * (1 - 0.5 * 0.96**step))
    for row, step in enumerate(t):
        product = [float(np.prod([mu(number) for number in range(1, step + 1)])) for mu in (mild, steep)]
        rate = rows[row, 1] * (1 - product[0]) / (1 - mild(step))
        rows[row, 1] = rate * (1 - steep(step)) / (1 - product[1])
        rows[row, 2] = rate * steep(step + 1) / (1 - product[1] * steep(step + 1))
    return rows


class _ClipEach(Update):
    def _clipped(self, xp: Any, gradients: Any) -> Any:
        c = self.spec.clip_norm
        return {k: g * xp.minimum(c / (xp.sqrt(xp.sum(g * g)) + 1e-6), 1.0) for k, g in gradients.items()}


class _KerasClip(Update):
    def _clipped(self, xp: Any, gradients: Any) -> Any:
        c = self.spec.clip_norm
        norm = xp.sqrt(sum(xp.sum(g * g) for g in gradients.values()))
        return {k: g * (c * xp.minimum(1.0 / norm, 1.0 / c)) for k, g in gradients.items()}


class _LateAverage(Update):
    def update(self, xp: Any, parameters: Any, gradients: Any, slots: Any, coefficients: Any) -> Any:
        new, state = super().update(xp, parameters, gradients, slots, coefficients)
        e = self.spec.ema
        state["ema"] = {k: e * slots["ema"][k] + (1 - e) * parameters[k] for k in new}
        return new, state


class _PlainDecay(Update):
    def update(self, xp: Any, parameters: Any, gradients: Any, slots: Any, coefficients: Any) -> Any:
        coupled = {k: g + self.spec.weight_decay * parameters[k] if self.decays[k] else g for k, g in gradients.items()}
        zero = [0.0 * coefficients[0], *coefficients[1:]]
        return super().update(xp, parameters, coupled, slots, zero)


def _right(kind: type[Update]) -> Callable[[Update], Update]:
    def make(right: Update) -> Update:
        return kind(right.spec, right.decays)

    return make


def _float_scalars(right: Update) -> Update:
    spec = right.spec.model_copy(
        update={name: float(np.float32(getattr(right.spec, name))) for name in ("beta1", "beta2")}
    )
    return Update(spec, right.decays)


def _started(value: float) -> Plant:
    def plant() -> Any:
        right = TorchProgram.__init__

        def wrong(self: Any, *arguments: Any) -> None:
            right(self, *arguments)
            for tensor in self._slots.get("sum_of_squares", {}).values():
                tensor.fill_(value)

        return attribute(TorchProgram, "__init__", wrong)

    return plant


def _summed() -> Any:
    right = TorchProgram.run_steps
    return attribute(
        TorchProgram,
        "run_steps",
        lambda self, placed, plan: right(self, placed, replace(plan, scale=plan.scale * 0 + 1)),
    )


OPTIMIZERS = [
    formula_fault("Keras' Adam", "Adam", Adam(), "uncorrected", _keras_adam),
    spec_fault("Adam with epsilon 1e-7", "Adam", Adam(), "epsilon=1e-07", epsilon=1e-7),
    coefficient_fault("Adam without bias correction", "Adam", Adam(), "bias correction", _probed(_uncorrected)),
    spec_fault("Adam with beta2 0.99", "Adam", Adam(), "beta2=0.99", beta2=0.99),
    coefficient_fault("bias correction one step late", "Adam", Adam(), "t counts from 0", _probed(_late_correction)),
    optimizer_fault(
        "scalars rounded to float32", "scalars in doubles", Adam(), "", _float_scalars, precision="float64"
    ),
    formula_fault("SGD with the rate inside", "SGD momentum", Sgd(momentum=0.9), "inside the velocity", _rate_inside),
    formula_fault("SGD dampened", "SGD momentum", Sgd(momentum=0.9), "dampens", _dampened),
    spec_fault("Nesterov where plain is meant", "SGD momentum", Sgd(momentum=0.9), "nesterov=true", nesterov=True),
    coefficient_fault(
        "another learning rate", "learning rate", Adam(), "lr=0.01", _probed(lambda rows: rows * [[10.0, 10.0, 1.0]])
    ),
    formula_fault("RMSprop with epsilon inside", "RMSprop", RmsProp(), "under the root", _inside),
    formula_fault("Adagrad with epsilon inside", "Adagrad", Adagrad(epsilon=1e-7), "under the root", _adagrad_inside),
    Fault(
        "Adagrad begun at 0.1",
        "Adagrad",
        "torch",
        row_net(HIDDEN),
        ROW,
        "optimizer",
        "at 0.1",
        _started(0.1),
        optimizer=Adagrad(),
    ),
    coefficient_fault(
        "Nadam's schedule 0.96^t", "Nadam momentum schedule", Nadam(), "0.96^t", _probed(_steep_schedule)
    ),
    formula_fault("Lion by the new momentum", "Lion", Lion(), "beta1=0.99", _lion),
    optimizer_fault("decay coupled in AdamW", "weight decay", AdamW(weight_decay=0.1), "couples", _right(_PlainDecay)),
    optimizer_fault(
        "decay coupled in SGD", "weight decay", Sgd(weight_decay=0.1, momentum=0.9), "couples", _right(_PlainDecay)
    ),
    spec_fault("decay of biases too", "weight decay", AdamW(weight_decay=0.1), "decay_all=true", decay_all=True),
    spec_fault("no decay", "weight decay", AdamW(weight_decay=0.1), "weight_decay=0", weight_decay=0.0),
    spec_fault("lambda for l2", "L2 penalty", Sgd(l2=1e-2), "l2=0.005", l2=5e-3),
    spec_fault("decoupled for l2", "L2 penalty", Sgd(l2=1e-2, lr=0.1), "", l2=0.0, weight_decay=2e-2),
    optimizer_fault(
        "norm clipped by parameter",
        "clip by global norm",
        Adam(clip_norm=0.5),
        "each parameter by itself",
        _right(_ClipEach),
    ),
    optimizer_fault(
        "Keras' clipping", "clip by global norm", Sgd(clip_norm=0.01), "without the 1e-6", _right(_KerasClip)
    ),
    spec_fault(
        "elements clipped", "clip by global norm", Sgd(clip_norm=0.5), "each element", clip_norm=None, clip_value=0.5
    ),
    spec_fault("not clipped", "clip by global norm", Sgd(clip_norm=0.5), "clip_norm=none", clip_norm=None),
    optimizer_fault("average of the old weights", "EMA", Adam(ema=0.9), "before the update", _right(_LateAverage)),
    Fault(
        "gradients summed over batches",
        "accumulation",
        "torch",
        row_net(HIDDEN),
        ROW,
        "optimizer",
        "adds up",
        _summed,
        optimizer=Sgd(momentum=0.9, weight_decay=0.1),
        accumulate=2,
    ),
]


class _WrongLoss:
    """A loss of torch's own, in place of the right one: the mean over the batch."""

    def __init__(self, right: Any, function: Callable[..., torch.Tensor], denominator: str = "right") -> None:
        self.right, self.function, self.denominator = right, function, denominator

    def terms(self, xp: Any, prediction: Any, target: Any, weight: Any) -> Any:
        value = self.function(prediction, target, weight, self.right)
        _, count = self.right.terms(xp, prediction, target, weight)
        return (value * count, count) if self.denominator == "right" else (value, torch.ones_like(value))

    def gradient(self, xp: Any, prediction: Any, target: Any, weight: Any) -> Any:
        with torch.enable_grad():
            x = prediction.detach().clone().requires_grad_()
            numerator, _ = self.terms(xp, x, target, weight)
            (gradient,) = torch.autograd.grad(numerator, x)
        return gradient


def loss_fault(name: str, row: str, loss: dict[str, Any], words: str, function: Any, **more: Any) -> Fault:
    """A fault in the loss of torch."""
    denominator = more.pop("denominator", "right")
    plant = other_loss("torch", lambda right: _WrongLoss(right, function, denominator))
    return Fault(name, row, "torch", row_net(HIDDEN), ROW, "loss of head", words, plant, loss=loss, **more)


F = torch.nn.functional
_CE = {"type": "cross_entropy"}


def _classes(t: torch.Tensor) -> torch.Tensor:
    return t.long().reshape(-1)


def _weighted_mean_by_count(x: Any, t: Any, w: Any, right: Any) -> torch.Tensor:
    return (w * F.cross_entropy(x, _classes(t), reduction="none")).mean()


def _by_probabilities(x: Any, t: Any, w: Any, right: Any) -> torch.Tensor:
    p = torch.softmax(x, -1).clamp(1e-7, 1 - 1e-7)
    return F.nll_loss(torch.log(p), _classes(t))


def _smoothed_over_others(x: Any, t: Any, w: Any, right: Any) -> torch.Tensor:
    s, k = 0.1, x.shape[-1]
    q = F.one_hot(_classes(t), k) * (1 - s) + (1 - F.one_hot(_classes(t), k)) * s / (k - 1)
    return -(q * torch.log_softmax(x, -1)).sum(-1).mean()


def _all_ignored_is_nan(x: Any, t: Any, w: Any, right: Any) -> torch.Tensor:
    return F.cross_entropy(x, _classes(t), ignore_index=0)


LOSSES = [
    loss_fault(
        "weighted mean divided by N",
        "cross-entropy with sample weights",
        _CE,
        "number of samples",
        _weighted_mean_by_count,
        weighted=True,
        denominator="one",
    ),
    loss_fault(
        "class weights divided by N",
        "cross-entropy with class weights",
        {**_CE, "class_weights": [0.5, 1.0, 3.0]},
        "number of samples",
        lambda x, t, w, r: (
            F.cross_entropy(x, _classes(t), torch.tensor([0.5, 1.0, 3.0], dtype=x.dtype), reduction="none")
        ).mean(),
        denominator="one",
    ),
    loss_fault(
        "class weights left out",
        "cross-entropy with class weights",
        {**_CE, "class_weights": [0.5, 1.0, 3.0]},
        "class_weights=none",
        lambda x, t, w, r: F.cross_entropy(x, _classes(t)),
        denominator="one",
    ),
    loss_fault(
        "NaN where all are ignored",
        "every target ignored",
        {**_CE, "ignore_index": 0},
        "",
        _all_ignored_is_nan,
        denominator="one",
    ),
    loss_fault("clipped probabilities", "cross-entropy input", _CE, "clipped at 1e-7", _by_probabilities),
    loss_fault(
        "softmax twice",
        "cross-entropy input",
        _CE,
        "softmax twice",
        lambda x, t, w, r: F.cross_entropy(torch.softmax(x, -1), _classes(t)),
    ),
    loss_fault(
        "smoothing over the other classes",
        "label smoothing",
        {**_CE, "label_smoothing": 0.1},
        "other classes only",
        _smoothed_over_others,
    ),
    loss_fault(
        "no label smoothing",
        "label smoothing",
        {**_CE, "label_smoothing": 0.1},
        "label_smoothing=0",
        lambda x, t, w, r: F.cross_entropy(x, _classes(t)),
    ),
    loss_fault(
        "BCE without smoothing",
        "label smoothing",
        {"type": "binary_cross_entropy", "label_smoothing": 0.1},
        "label_smoothing=0",
        lambda x, t, w, r: F.binary_cross_entropy_with_logits(x, t.to(x.dtype)),
    ),
    loss_fault(
        "BCE of clipped probabilities",
        "cross-entropy input",
        {"type": "binary_cross_entropy"},
        "clipped at 1e-7",
        lambda x, t, w, r: F.binary_cross_entropy(torch.sigmoid(x).clamp(1e-7, 1 - 1e-7), t.to(x.dtype)),
    ),
    loss_fault(
        "smooth L1 for Huber",
        "Huber",
        {"type": "huber", "delta": 2.0},
        "smooth L1",
        lambda x, t, w, r: F.smooth_l1_loss(x, t, beta=2.0),
    ),
    loss_fault(
        "Huber with delta 1",
        "Huber",
        {"type": "huber", "delta": 2.0},
        "delta=1",
        lambda x, t, w, r: F.huber_loss(x, t, delta=1.0),
    ),
    loss_fault(
        "KL with reduction='mean'",
        "KL",
        {"type": "kl_divergence"},
        "classes too",
        lambda x, t, w, r: F.kl_div(torch.log_softmax(x, -1), t, reduction="mean"),
    ),
    loss_fault("squares for absolutes", "MAE", {"type": "mae"}, "squared", lambda x, t, w, r: F.mse_loss(x, t)),
    loss_fault("half of the squares", "MSE", {"type": "mse"}, "0.5 times", lambda x, t, w, r: 0.5 * F.mse_loss(x, t)),
    loss_fault(
        "a sum for a mean",
        "MSE",
        {"type": "mse"},
        "sum over the batch",
        lambda x, t, w, r: ((x - t) ** 2).sum(),
        denominator="one",
    ),
]


def _transposed() -> Any:
    right = GraphModule.to_canonical

    def wrong(self: Any, canonical: str, tensor: Any) -> Any:
        array = right(self, canonical, tensor)
        return array.T.copy() if array.ndim == 2 and array.shape[0] == array.shape[1] else array

    return attribute(GraphModule, "to_canonical", wrong)


def _rounded_weights() -> Any:
    right = GraphModule.canonical_weights

    def wrong(self: Any) -> Any:
        return {name: array.astype(np.float16).astype(array.dtype) for name, array in right(self).items()}

    return attribute(GraphModule, "canonical_weights", wrong)


def _swapped_slots() -> Any:
    right = TorchProgram.slots

    def wrong(self: Any) -> Any:
        slots = right(self)
        return {
            slot: {**arrays, "stem.bias": arrays["act2.bias"]} if slot == "mean" else arrays
            for slot, arrays in slots.items()
        }

    return attribute(TorchProgram, "slots", wrong)


def _ignores_weights(rule: TrainingRule) -> TrainingRule:
    class Unweighted:
        def __init__(self, loss: Any) -> None:
            self.loss = loss

        def terms(self, xp: Any, p: Any, t: Any, w: Any) -> Any:
            return self.loss.terms(xp, p, t, None)

        def gradient(self, xp: Any, p: Any, t: Any, w: Any) -> Any:
            return self.loss.gradient(xp, p, t, None)

    return replace(rule, losses={name: (factor, Unweighted(loss)) for name, (factor, loss) in rule.losses.items()})


SQUARE = row_net({"type": "dense", "name": "act2", "units": 6})
OTHERS = [
    Fault("weights read back transposed", "dense / conv weight", "torch", SQUARE, ROW, "stem", "", _transposed),
    Fault(
        "weights rounded on the way", "weights bit for bit", "torch", row_net(HIDDEN), ROW, "stem", "", _rounded_weights
    ),
    Fault("a slot under another's name", "optimizer state", "torch", SQUARE, ROW, "stem", "", _swapped_slots),
    Fault(
        "weights of samples ignored",
        "cross-entropy with sample weights",
        "torch",
        row_net(HIDDEN),
        ROW,
        "loss of head",
        "leaves the weights",
        other_rule("torch", _ignores_weights),
        loss=_CE,
        weighted=True,
    ),
]

FAULTS = [*OPTIMIZERS, *LOSSES, *OTHERS]
