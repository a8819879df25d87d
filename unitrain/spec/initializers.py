"""How a parameter starts. Only names and numbers here; `unitrain.weights.initialize` draws the values."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, PositiveFloat, model_validator
from pydantic_core import PydanticCustomError

from unitrain.spec.base import Spec
from unitrain.spec.choice import Choice

Distribution = Literal["uniform", "normal", "truncated_normal"]


class Zeros(Spec):
    """All zeros."""

    type: Literal["zeros"] = "zeros"


class Ones(Spec):
    """All ones."""

    type: Literal["ones"] = "ones"


class Constant(Spec):
    """One value everywhere."""

    type: Literal["constant"] = "constant"
    value: float


class Uniform(Spec):
    """Uniform between ``low`` and ``high``."""

    type: Literal["uniform"] = "uniform"
    low: float = -0.05
    high: float = 0.05

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} lies above high {self.high}")
        return self


class Normal(Spec):
    """Normal around zero."""

    type: Literal["normal"] = "normal"
    stddev: PositiveFloat = 0.05


class TruncatedNormal(Spec):
    """Normal around zero, cut at two sigma and rescaled, so that its standard deviation is ``stddev``."""

    type: Literal["truncated_normal"] = "truncated_normal"
    stddev: PositiveFloat = 0.05


class _Scaled(Spec):
    """Variance gain**2 times a function of the fans."""

    distribution: Distribution = "uniform"
    gain: PositiveFloat = 1.0


class Glorot(_Scaled):
    """Variance 2 / (fan in + fan out) (Glorot & Bengio 2010, equation 12)."""

    type: Literal["glorot"] = "glorot"


class He(_Scaled):
    """Variance 2 / fan in (He et al. 2015, equation 10)."""

    type: Literal["he"] = "he"


class Lecun(_Scaled):
    """Variance 1 / fan in (LeCun et al. 1998, section 4.6)."""

    type: Literal["lecun"] = "lecun"


class Orthogonal(Spec):
    """Orthonormal columns (or rows) of the kernel folded to ``(everything else, out)`` (Saxe et al. 2014)."""

    type: Literal["orthogonal"] = "orthogonal"
    gain: PositiveFloat = 1.0


# An initialiser that needs no number may be written as a word.
InitializerWord = Literal[
    "zeros",
    "ones",
    "uniform",
    "normal",
    "truncated_normal",
    "orthogonal",
    "glorot",
    "glorot_uniform",
    "glorot_normal",
    "glorot_truncated_normal",
    "he",
    "he_uniform",
    "he_normal",
    "he_truncated_normal",
    "lecun",
    "lecun_uniform",
    "lecun_normal",
    "lecun_truncated_normal",
]


def _from_word(value: Any) -> Any:
    """Read ``he_normal`` as a He initialiser with a normal distribution, ``zeros`` as ``{type: zeros}``."""
    if not isinstance(value, str):
        return value
    words = get_args(InitializerWord)
    if value not in (*words, "constant"):
        raise PydanticCustomError(
            "unknown_word", "unknown initialiser '{found}'", {"found": value, "choices": [*words, "constant"]}
        )
    family, _, distribution = value.partition("_")
    if family in ("glorot", "he", "lecun") and distribution:
        return {"type": family, "distribution": distribution}
    return {"type": value}


Initializer = Annotated[
    Annotated[
        Zeros | Ones | Constant | Uniform | Normal | TruncatedNormal | Glorot | He | Lecun | Orthogonal,
        Choice(),
    ],
    BeforeValidator(_from_word, json_schema_input_type=InitializerWord),
]
