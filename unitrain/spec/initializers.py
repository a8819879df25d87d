"""How a parameter starts. Only names and numbers here; `unitrain.weights.initialize` draws the values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat

from unitrain.spec.base import Spec

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


_SCALED_NAMES = {
    f"{family}_{distribution}": {"type": family, "distribution": distribution}
    for family in ("glorot", "he", "lecun")
    for distribution in ("uniform", "normal", "truncated_normal")
}


def _from_name(value: Any) -> Any:
    """Read ``he_normal`` as a He initialiser with a normal distribution, ``zeros`` as ``{type: zeros}``."""
    if isinstance(value, str):
        return _SCALED_NAMES.get(value, {"type": value})
    return value


Initializer = Annotated[
    Annotated[
        Zeros | Ones | Constant | Uniform | Normal | TruncatedNormal | Glorot | He | Lecun | Orthogonal,
        Field(discriminator="type"),
    ],
    BeforeValidator(_from_name, json_schema_input_type=str | dict[str, Any]),
]
