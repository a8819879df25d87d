"""Knowledge distillation: what another model says of the training samples is a second target (Hinton et al. 2015).

A program knows one target for each output. So the teacher's logits lie beside the class number in one array,
``[..., 1 + classes]``, on every backend alike; losses and metrics of training are told so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays, Batchable, Program
from unitrain.backends.namespace import ArrayNamespace, Tensor
from unitrain.backends.rule import MetricFunction, TrainingRule
from unitrain.data.preprocess import Preprocessing
from unitrain.spec.errors import InputError
from unitrain.spec.pruning import DistillationSpec
from unitrain.train.inference import TrainedRun
from unitrain.train.losses import SoftmaxCrossEntropy, scaled
from unitrain.train.recipe import LoadedRecipe
from unitrain.train.session import Place


@dataclass(frozen=True)
class DistilledCrossEntropy:
    """l = (1 - a) hard + a T^2 KL(softmax(z / T) || softmax(x / T)), z the teacher's logits, weighted as the hard loss.

    dl/dx = (1 - a) dhard/dx + a T (softmax(x / T) - softmax(z / T)). The factor T^2 keeps the two gradients in
    proportion when T changes (Hinton et al. 2015, section 2).
    """

    hard: SoftmaxCrossEntropy
    spec: DistillationSpec

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return sum(w * l) and sum(w)."""
        classes, teacher = unpacked(xp, prediction, target)
        numerator, denominator = self.hard.terms(xp, prediction, classes, weight)
        _, weights = self.hard.counted(xp, prediction, classes, weight)
        t, a = self.spec.temperature, self.spec.alpha
        wanted, said = xp.log_softmax(teacher / t), xp.log_softmax(prediction / t)
        divergence = xp.sum(xp.exp(wanted) * (wanted - said), axis=-1)
        return (1.0 - a) * numerator + a * t**2 * xp.sum(scaled(weights, divergence)), denominator

    def gradient(self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return the gradient of the numerator."""
        classes, teacher = unpacked(xp, prediction, target)
        _, weights = self.hard.counted(xp, prediction, classes, weight)
        t, a = self.spec.temperature, self.spec.alpha
        soft = xp.softmax(prediction / t) - xp.softmax(teacher / t)
        hard = self.hard.gradient(xp, prediction, classes, weight)
        return (1.0 - a) * hard + a * t * scaled(None if weights is None else weights[..., None], soft)


@dataclass(frozen=True)
class OfClasses:
    """A metric that looks at the class numbers of targets beside which a teacher's logits lie."""

    metric: MetricFunction

    def terms(
        self, xp: ArrayNamespace, prediction: Tensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return the metric's numerator and denominator."""
        return self.metric.terms(xp, prediction, unpacked(xp, prediction, target)[0], weight)


def packed(classes: npt.NDArray[Any], logits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Put logits ``[batch, ..., class]`` behind class numbers: float32, exact for numbers below 2^24."""
    first = classes.reshape(*logits.shape[:-1], 1).astype(np.float32)
    return np.concatenate([first, logits.astype(np.float32)], axis=-1)


def unpacked(xp: ArrayNamespace, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return class numbers, as integers, and logits in the dtype of the prediction."""
    classes = xp.cast(target[..., 0], xp.argmax(prediction, axis=-1))
    return classes, xp.cast(target[..., 1:], prediction)


def taught_by(run: Path, given: DistillationSpec | None) -> DistillationSpec:
    """Let a run teach, in the way that a recipe says for another teacher, if it does."""
    teacher = str(run.resolve())
    return DistillationSpec(teacher=teacher) if given is None else given.model_copy(update={"teacher": teacher})


@dataclass(frozen=True)
class Distillation:
    """A teacher, ready to be asked, and what it is asked for.

    Parameters
    ----------
    spec
        The recipe's.
    outputs
        The outputs that it teaches.
    teacher
        Its program, for inference.
    batch_size
        Samples that it is asked for at a time.
    """

    spec: DistillationSpec
    outputs: tuple[str, ...]
    teacher: Program
    batch_size: int

    @classmethod
    def of(cls, loaded: LoadedRecipe, place: Place, preprocessing: Preprocessing) -> Distillation | None:
        """Load a recipe's teacher onto the backend and device that train; None where there is none.

        Raises
        ------
        InputError
            It is no run, it or a loss does not fit, or it was trained on data that were prepared in another way.
        """
        spec = loaded.recipe.distillation
        if spec is None:
            return None
        try:
            _check_losses(loaded)
            run = TrainedRun.open(loaded.folder / spec.teacher, backend=place.backend.name, device=place.device)
            _check_teacher(loaded, run, preprocessing)
        except InputError as error:
            problem = error.problems[0]
            raise loaded.locate(
                InputError(
                    problem.message,
                    field=("distillation", "teacher") if problem.field[:1] != ("loss",) else problem.field,
                    found=problem.found or spec.teacher,
                    allowed=problem.allowed,
                    hint=problem.hint,
                )
            ) from None
        return cls(spec, tuple(loaded.losses), run.program, loaded.recipe.training.evaluation_batch_size)

    def rule(self, rule: TrainingRule) -> TrainingRule:
        """Return what a training step computes of targets beside which the teacher's logits lie."""
        losses = {}
        for output, (factor, loss) in rule.losses.items():
            assert isinstance(loss, SoftmaxCrossEntropy)
            losses[output] = (factor, DistilledCrossEntropy(loss, self.spec))
        metrics = [(label, output, OfClasses(metric)) for label, output, metric in rule.metrics]
        return replace(rule, losses=losses, metrics=metrics)

    def teach(self, inputs: Arrays, targets: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Return targets with the teacher's logits for these very inputs beside them."""
        said = self.teacher.predict(inputs, self.batch_size)
        return {output: packed(targets[output], said[output]) for output in self.outputs}

    def taught(self, data: Batchable) -> Batchable:
        """Ask the teacher once for a whole data set in memory."""
        return replace(data, targets=self.teach(data.inputs, data.targets))


def _check_losses(loaded: LoadedRecipe) -> None:
    for output, loss in loaded.losses.items():
        if loss.loss.type != "cross_entropy":
            raise InputError(
                f"distillation softens classes, and output '{output}' has another loss",
                field=("loss",),
                found=loss.loss.type,
                allowed="cross_entropy",
            )


def _check_teacher(loaded: LoadedRecipe, run: TrainedRun, preprocessing: Preprocessing) -> None:
    """See that a teacher reads what the model reads, and gives what it gives."""
    ours, theirs = loaded.graph, run.loaded.graph
    read = [{name: (one.shape, one.dtype) for name, one in graph.inputs.items()} for graph in (ours, theirs)]
    given = [
        {name: graph.shape(node) for name, node in graph.outputs.items() if name in loaded.losses}
        for graph in (ours, theirs)
    ]
    for what, (wanted, found) in (("inputs", read), ("outputs", given)):
        if wanted != found:
            raise InputError(f"the teacher has other {what}", found=str(found), allowed=str(wanted))
    if run.preprocessing.to_plain() != preprocessing.to_plain():
        raise InputError(
            "the teacher was trained on data that were prepared in another way",
            hint="the teacher's recipe needs the same data, split and seed",
        )
