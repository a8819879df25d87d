"""The variants that a study knows: one table, one small function each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from unitrain.backends.onnx.deployed import Level
from unitrain.backends.onnx.posttraining import Static
from unitrain.backends.onnx.reduced import dynamic_int8, half, weights_only
from unitrain.spec.errors import unknown_name
from unitrain.study.gates import Expected
from unitrain.study.pruned import pruned, pruned_int8, sparse
from unitrain.study.results import BASELINE
from unitrain.study.runtimes import Runtime
from unitrain.study.sensitivity import mixed
from unitrain.study.trained_int8 import qat
from unitrain.study.workshop import Built, Workshop

FLOAT = Expected()
SMALLER = Expected(differs=True, not_larger=True)
INTEGERS = Expected(integers=True, differs=True, not_larger=True)
Needs = Literal["file", "training"]


@dataclass(frozen=True)
class Variant:
    """One way to deploy the model.

    Parameters
    ----------
    name, what
        As it is called, and a few words on it.
    build
        Makes it. Raises `InputError` with the reason where it is impossible for the model.
    expected
        What its gates ask.
    needs
        ``file``: any ONNX file will do; ``training``: a run is trained further, which is done only when the variant is
        named.
    candidate
        Whether it may be recommended: a negative control may not.
    """

    name: str
    what: str
    build: Callable[[Workshop], Built]
    expected: Expected = FLOAT
    needs: Needs = "file"
    candidate: bool = True


def _as_is(workshop: Workshop, level: Level = "all") -> Built:
    return Built(workshop.subject.model, level)


def _static(workshop: Workshop, options: Static = Static()) -> Built:  # noqa: B008  # immutable
    return workshop.static(options)


def _dynamic(workshop: Workshop, convolutions: bool = False) -> Built:
    prepared = workshop.prepared()
    return Built(dynamic_int8(prepared.model, convolutions=convolutions), notes=prepared.notes)


def _weights(workshop: Workshop, bits: Literal[4, 8]) -> Built:
    prepared = workshop.prepared()
    return Built(weights_only(prepared.model, bits), notes=prepared.notes)


def _half(workshop: Workshop) -> Built:
    prepared = workshop.prepared()
    return Built(half(prepared.model), notes=prepared.notes)


# Label, in words, arguments.
_SPARSE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("50", "50 %", {"sparsity": 0.5}),
    ("80", "80 %", {"sparsity": 0.8}),
    ("90", "90 %", {"sparsity": 0.9}),
    ("2:4", "2 of every 4", {"pattern": (2, 4)}),
)
# Ending of the name, in words, function, what its gates ask.
_PRUNED: tuple[tuple[str, str, Callable[..., Built], Expected], ...] = (
    ("", "", pruned, SMALLER),
    ("-int8", ", static int8", pruned_int8, INTEGERS),
)

_ALL = (
    Variant(BASELINE, "float model, all of onnxruntime's optimisations", _as_is),
    Variant("fp32-extended", "float model, extended optimisations", partial(_as_is, level="extended")),
    Variant("fp32-basic", "float model, basic optimisations", partial(_as_is, level="basic")),
    Variant("fp32-none", "float model, not optimised", partial(_as_is, level="none")),
    Variant("int8", "static int8 (U8S8), a scale for each channel, ranges by min and max", _static, INTEGERS),
    Variant(
        "int8-tensor",
        "static int8 (U8S8), one scale for each weight",
        partial(_static, options=Static(per_channel=False)),
        INTEGERS,
    ),
    Variant(
        "int8-entropy",
        "static int8 per channel, ranges by entropy",
        partial(_static, options=Static(calibration="entropy")),
        INTEGERS,
    ),
    Variant(
        "int8-percentile",
        "static int8 per channel, ranges by percentile",
        partial(_static, options=Static(calibration="percentile")),
        INTEGERS,
    ),
    Variant(
        "int8-reduced",
        "static int8 per channel, weights of 7 bits: cannot saturate on older CPUs",
        partial(_static, options=Static(reduce_range=True)),
        INTEGERS,
    ),
    Variant(
        "int8-u8u8",
        "static int8 per tensor, unsigned weights: for CPUs without VNNI",
        partial(_static, options=Static(per_channel=False, signed_weights=False)),
        INTEGERS,
    ),
    Variant("int8-dynamic", "dynamic int8 of matrix products and LSTM", _dynamic, INTEGERS),
    Variant(
        "int8-dynamic-all",
        "dynamic int8 of convolutions too: a negative control, known to be slow",
        partial(_dynamic, convolutions=True),
        INTEGERS,
        candidate=False,
    ),
    Variant("fp16", "float16 inside, float32 outside", _half, SMALLER),
    Variant("int8-weights", "weights of 8 bits in blocks, products in int8", partial(_weights, bits=8), INTEGERS),
    Variant("int4-weights", "weights of 4 bits in blocks, products in int8", partial(_weights, bits=4), INTEGERS),
    Variant("mixed", "static int8, the operators that suffer most restored to float", mixed, INTEGERS),
    *(
        Variant(
            f"sparse-{label}",
            f"{what} of the weights zero, trained further: smaller after compression only, no faster here",
            partial(sparse, **options),
            SMALLER,
            needs="training",
            candidate=False,
        )
        for label, what, options in _SPARSE
    ),
    *(
        Variant(
            f"pruned-{share}{suffix}",
            f"{share} % of the channels gone, trained further{what}",
            partial(build, ratio=share / 100),
            expected,
            needs="training",
        )
        for suffix, what, build, expected in _PRUNED
        for share in (25, 50)
    ),
    Variant("qat", "static int8, trained further with rounded numbers", qat, INTEGERS, needs="training"),
)

VARIANTS: dict[str, Variant] = {variant.name: variant for variant in _ALL}
RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("numpy", "float model in unitrain's NumPy program", "numpy", "numpy"),
        Runtime("torch-eager", "float model as a torch.nn.Module", "torch", "eager"),
        Runtime("torch-compiled", "float model by torch.compile", "torch", "compile"),
        Runtime("tensorflow-xla", "float model by TensorFlow's XLA", "keras", "xla"),
    )
}
ALL = "all"


def choose(named: Sequence[str] | None, *, is_run: bool) -> tuple[list[Variant], list[Runtime]]:
    """Return the variants to be made, the float model first, and the other runtimes.

    Parameters
    ----------
    named
        Names, or ``all``; by default all that need no training.

    Raises
    ------
    InputError
        A name is unknown.
    """
    if named is None:
        return [item for item in _ALL if item.needs == "file"], []
    known = (*VARIANTS, *RUNTIMES, ALL)
    for name in named:
        if name not in known:
            raise unknown_name("variant", name, known)
    whole = ALL in named

    def wanted(name: str, possible: bool) -> bool:
        return name in named or (whole and possible)

    return (
        [item for item in _ALL if item.name == BASELINE or wanted(item.name, is_run or item.needs == "file")],
        [item for item in RUNTIMES.values() if wanted(item.name, is_run)],
    )
