"""What a complete run is: model, data, loss, optimizer, schedule, metrics, and the course of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, NonNegativeInt, Tag, field_validator, model_validator

from unitrain.spec.base import Spec
from unitrain.spec.data import DataSpec
from unitrain.spec.execution import ExecutionSpec
from unitrain.spec.expressions import Argument
from unitrain.spec.losses import Loss
from unitrain.spec.metrics import Metric
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Optimizer
from unitrain.spec.pruning import DistillationSpec, PruningSpec
from unitrain.spec.quantization import Quantization
from unitrain.spec.schedules import Schedule
from unitrain.spec.study import StudySpec
from unitrain.spec.training import TrainingSpec


def _as_written(schema: dict[str, Any]) -> None:
    """Describe what `ModelReference` reads: a path, or a mapping that holds the arguments beside the file."""
    argument = schema["properties"]["arguments"]["additionalProperties"]
    kept: dict[str, Any] = {key: schema.pop(key) for key in ("title", "description") if key in schema}
    mapping = {**schema, "additionalProperties": argument}
    schema.clear()
    schema.update(kept, anyOf=[{"type": "string"}, mapping])


class ModelReference(Spec):
    """A model in a file of its own, with values for its arguments beside the file's name.

    ``model: {file: ../models/lenet5.yaml, classes: 7}``; ``model: ../models/lenet5.yaml`` for the defaults. A
    relative path counts from the recipe's folder.
    """

    model_config = ConfigDict(json_schema_extra=_as_written)

    file: str
    arguments: dict[str, Argument] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather_arguments(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"file": data}
        if isinstance(data, Mapping) and "arguments" not in data:
            rest = {key: value for key, value in data.items() if key != "file"}
            return {**({"file": data["file"]} if "file" in data else {}), "arguments": rest}
        return data

    def to_plain(self) -> dict[str, Any]:
        """Return file and arguments side by side, as they are written in a recipe."""
        return {"file": self.file, **self.arguments}


def _model_kind(value: Any) -> str:
    inline = isinstance(value, ModelSpec) or (isinstance(value, Mapping) and "layers" in value)
    return "inline" if inline else "file"


ModelField = Annotated[
    Annotated[ModelReference, Tag("file")] | Annotated[ModelSpec, Tag("inline")],
    Discriminator(_model_kind),
]


def _loss_kind(value: Any) -> str:
    one = isinstance(value, str) or not isinstance(value, Mapping) or "type" in value
    return "one" if one else "by_output"


class OutputLoss(Spec):
    """The loss of one of several outputs, and its factor in the total."""

    loss: Loss
    factor: float = 1.0


LossField = Annotated[
    Annotated[Loss, Tag("one")] | Annotated[dict[str, OutputLoss], Tag("by_output")],
    Discriminator(_loss_kind),
]


class Recipe(Spec):
    """A complete run.

    Parameters
    ----------
    name
        Names the run folder.
    description
        A sentence about it.
    model
        A model file, with arguments, or a model written out.
    data
        Where samples come from and how they are prepared.
    loss
        The loss; for several outputs ``{output: {loss: ..., factor: ...}}``, total = sum of factor * loss.
    optimizer
        The rule that turns gradients into updates.
    schedule
        The learning rate as a function of the update.
    metrics
        What is measured on training and validation data beside the loss.
    training
        The course of the run.
    initial_weights
        What training starts from, in the place of drawn weights: a run folder, or a safetensors file. A relative path
        counts from the recipe's folder.
    pruning
        Weights that become zero in training, and stay zero.
    distillation
        Another model, of which this one learns beside the data.
    quantization
        Train for arithmetic in integers.
    backend, device
        Where it runs, unless the command line says otherwise. ``auto`` takes an accelerator if there is one.
    seed
        Keys every random draw: initial weights, splits, order, augmentation, dropout.
    deterministic
        Dropout masks from the project's own generator, the same on every backend.
    execution
        Which form of the program trains: the backend's standard one, or the fastest of those it has.
    tracking
        Also write events for ``tensorboard``.
    study
        What ``unitrain study`` compares of the trained model.
    """

    name: str = "run"
    description: str | None = None
    model: ModelField
    data: DataSpec
    loss: LossField
    optimizer: Optimizer
    schedule: Schedule | None = None
    metrics: tuple[Metric, ...] = ()
    training: TrainingSpec = TrainingSpec()
    initial_weights: str | None = None
    pruning: PruningSpec | None = None
    distillation: DistillationSpec | None = None
    quantization: Quantization | None = None
    backend: Literal["numpy", "keras", "torch"] = "numpy"
    device: str = "auto"
    seed: NonNegativeInt = 0
    deterministic: bool = False
    execution: ExecutionSpec = ExecutionSpec()
    tracking: tuple[Literal["tensorboard"], ...] = ()
    study: StudySpec = StudySpec()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        """See that the name, which a run folder bears, leads nowhere else."""
        strange = any(character in "/\\:" or not character.isprintable() for character in name)
        if not name or name.startswith(".") or len(name) > 100 or strange:
            raise ValueError("must be able to name a folder: printable, no / \\ :, no . in front, up to 100 characters")
        return name
