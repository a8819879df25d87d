"""Pruning while a model trains, and learning from another one."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from unitrain.spec.base import Spec

Share = Annotated[float, Field(ge=0.0, le=1.0)]
# Of so many neighbouring input channels, so many are kept.
Pattern = tuple[PositiveInt, PositiveInt]


class PruningSpec(Spec):
    """The smallest weights become zero while the model trains, and every weight that is zero stays zero.

    With neither ``sparsity`` nor ``pattern`` none becomes zero: a model that was pruned before keeps its zeros. Only
    kernels of matrix and convolution arithmetic take part.

    Parameters
    ----------
    sparsity
        The fraction of zeros in the end.
    scope
        ``layer``: that fraction of each kernel; ``global``: of all of them together.
    pattern
        ``[2, 4]``: in the place of ``sparsity``, at update ``begin`` keep the 2 largest of every 4 neighbouring input
        channels.
    begin, end
        The updates at which the first weights go and the last. Between, the fraction rises as
        ``sparsity * (1 - (1 - t)^3)``, t from 0 to 1 (Zhu & Gupta 2017, equation 1). By default ``end`` is after three
        quarters of the run; where it is ``begin`` all go at once.
    every
        Updates from one removal to the next.
    """

    sparsity: Share | None = None
    scope: Literal["layer", "global"] = "layer"
    pattern: Pattern | None = None
    begin: NonNegativeInt = 0
    end: NonNegativeInt | None = None
    every: PositiveInt = 100

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.sparsity is not None and self.pattern is not None:
            raise ValueError("set sparsity or pattern")
        if self.pattern is not None and self.pattern[0] >= self.pattern[1]:
            raise ValueError(f"pattern keeps {self.pattern[0]} of {self.pattern[1]}, which is all")
        if self.end is not None and self.end < self.begin:
            raise ValueError(f"end {self.end} lies before begin {self.begin}")
        return self


class DistillationSpec(Spec):
    """The model also learns what another one says of the training samples (Hinton et al. 2015, section 2).

    The loss becomes ``(1 - alpha) * loss + alpha * temperature^2 * KL(teacher || model)``, both softened: softmax of
    logits / temperature. Each trained output needs the loss ``cross_entropy``, and the teacher an output of the same
    name and shape.

    Parameters
    ----------
    teacher
        A run folder. A relative path counts from the recipe's folder.
    temperature
        Higher ones tell more of the classes that the teacher finds unlikely.
    alpha
        The teacher's share of the loss.
    """

    teacher: str
    temperature: PositiveFloat = 2.0
    alpha: Share = 0.5
