"""A case of the fuzzer: a recipe without data, in one YAML file that `unitrain verify` reads."""

from __future__ import annotations

from dataclasses import replace

from pydantic import NonNegativeInt, PositiveInt

from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.base import Spec, at_document, validate
from unitrain.spec.errors import InputError, unknown_name
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam, Optimizer
from unitrain.spec.recipe import OutputLoss
from unitrain.spec.schedules import Schedule
from unitrain.spec.yaml import Document
from unitrain.train.schedules import make_schedule
from unitrain.verify.subject import BATCH, Subject, model_subject

# Updates in an epoch and in the whole run, as the schedule of a case sees them: short, so that rates change.
EPOCH, RUN = 3, 12


class CaseTraining(Spec):
    """How a case is trained.

    Parameters
    ----------
    batch_size
        Samples in a batch.
    accumulate
        Batches in an update.
    """

    batch_size: PositiveInt = BATCH
    accumulate: PositiveInt = 1


class VerifyCase(Spec):
    """A model with its training, on drawn data; the fields are a recipe's.

    Parameters
    ----------
    model
        The model, written out.
    loss
        The loss of each trained output; without any all have the mean squared error.
    optimizer
        The rule that turns gradients into updates.
    schedule
        The learning rate as a function of the update, three updates an epoch; by default it falls to a tenth for three
        updates out of six.
    training
        Sizes of batches and updates.
    seed
        Keys weights, data and dropout masks.
    """

    model: ModelSpec
    loss: dict[str, OutputLoss] = {}
    optimizer: Optimizer = Adam()
    schedule: Schedule | None = None
    training: CaseTraining = CaseTraining()
    seed: NonNegativeInt = 0

    def graph(self, document: Document | None = None) -> Graph:
        """Resolve the model; ``document`` is where the case was read, to name file and line in errors.

        Raises
        ------
        InputError
            The model does not resolve, or a loss is for no output or does not fit it.
        """
        field: tuple[str, ...] = ("model",)
        try:
            graph = resolve(self.model)
            field = ()
            self._check_losses(graph)
        except InputError as error:
            raise error if document is None else at_document(error, document, field) from None
        return graph

    def _check_losses(self, graph: Graph) -> None:
        for name, item in self.loss.items():
            if name not in graph.outputs:
                raise unknown_name("output of the model", name, graph.outputs, ("loss", name))
            shape = graph.shape(graph.outputs[name])
            over_classes = item.loss.type in ("cross_entropy", "kl_divergence")
            if over_classes and not shape:
                raise InputError(f"{item.loss.type} needs an output with an axis of classes", field=("loss", name))
            weights = getattr(item.loss, "class_weights", None)
            if over_classes and weights is not None and len(weights) != shape[-1]:
                raise InputError(
                    "class_weights do not fit the output",
                    field=("loss", name, "loss", "class_weights"),
                    found=str(len(weights)),
                    allowed=str(shape[-1]),
                )

    def subject(self, name: str, document: Document | None = None) -> Subject:
        """Return what is verified. Raises `InputError`."""
        graph = self.graph(document)
        rates = None
        if self.schedule is not None:
            rates = make_schedule(self.schedule, self.optimizer.lr, EPOCH, RUN).learning_rates
        subject = model_subject(
            name,
            graph,
            losses=self.loss or None,
            optimizer=self.optimizer,
            rates=rates,
            accumulate=self.training.accumulate,
            seed=self.seed,
        )
        return replace(subject, batch_size=min(self.training.batch_size, subject.batch_size))

    def written(self) -> str:
        """Write the case as YAML that `read_case` reads: the model by itself where all else is as by default."""
        return self.model.to_yaml() if self.to_plain().keys() == {"model"} else self.to_yaml()


def read_case(document: Document) -> VerifyCase:
    """Read a case, or a model to be trained as by default. Raises `InputError` with file, line and field."""
    if isinstance(document.data, dict) and "model" in document.data:
        case = validate(VerifyCase, document)
        case.graph(document)
        return case
    model = validate(ModelSpec, document)
    resolve(model, document=document)
    return VerifyCase(model=model)


def is_case(document: Document) -> bool:
    """Tell a case from a recipe: it has a model and no data, and no field that only a recipe has."""
    fields = document.data.keys() if isinstance(document.data, dict) else set()
    return "model" in fields and fields <= VerifyCase.model_fields.keys()
