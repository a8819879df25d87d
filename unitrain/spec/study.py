"""What a study compares, and how samples become a third party's inputs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from unitrain.spec.base import Spec

Margin = Annotated[float, Field(gt=0.0, lt=1.0)]


class StudySpec(Spec):
    """Variants of a trained model, measured side by side by ``unitrain study``.

    Parameters
    ----------
    variants
        Names, as ``unitrain study --list`` shows them; by default all that need no training.
    margin
        The loss of quality that is accepted, relative to the float model's.
    calibration_samples
        Most samples from which ranges of activations are taken.
    rounds
        Interleaved rounds in which latency is measured.
    threads
        Threads of each contender.
    batch
        Samples a call in the offline scenario; single stream is one.
    finetune_epochs
        Epochs of training after channels are pruned, while weights become zero, or with fake quantisation. With 0
        what is pruned is studied as it is.
    distill
        What is pruned also learns, while it is trained further, what the float model says of the training samples, as
        a recipe's ``distillation`` says how (by default as that says). Outputs need the loss ``cross_entropy``.
    saturation_check
        Also tell how many predictions of static int8 change on CPUs without VNNI.
    """

    variants: tuple[str, ...] | None = None
    margin: Margin = 0.01
    calibration_samples: PositiveInt = 256
    rounds: Annotated[int, Field(ge=5)] = 30
    threads: PositiveInt = 1
    batch: PositiveInt = 32
    finetune_epochs: NonNegativeInt = 3
    distill: bool = False
    saturation_check: bool = False

    @model_validator(mode="after")
    def _a_teacher_needs_epochs(self) -> StudySpec:
        if self.distill and not self.finetune_epochs:
            raise ValueError("a teacher teaches in fine-tuning, and finetune_epochs is 0")
        return self


class ImagePreprocessing(Spec):
    """How pictures become the input of a third party's model: ``(pixel * scale - mean) / std``.

    Parameters
    ----------
    size
        ``[height, width]`` to which pictures are resized.
    channels
        Order of the channels.
    scale
        Factor of a pixel of 0 to 255.
    mean, std
        Of each channel, or one for all, after scaling.
    layout
        ``nchw`` or ``nhwc``; by default what the model's input says.
    classes
        Names of the classes in the order of the output, where labels are names.
    """

    size: tuple[PositiveInt, PositiveInt]
    channels: Literal["rgb", "bgr", "grayscale"] = "rgb"
    scale: PositiveFloat = 1.0 / 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[PositiveFloat, ...] = (1.0,)
    layout: Literal["nchw", "nhwc"] | None = None
    classes: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _fits(self) -> ImagePreprocessing:
        count = 1 if self.channels == "grayscale" else 3
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, count):
                raise ValueError(f"{name} has {len(getattr(self, name))} numbers, and there are {count} channels")
        return self
