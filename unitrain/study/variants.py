"""The variants that a study knows: one table, one small function each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from unitrain.backends.onnx.deployed import Level
from unitrain.backends.onnx.posttraining import Static
from unitrain.backends.onnx.reduced import dynamic_int8, half, weights_only
from unitrain.spec.errors import unknown_name
from unitrain.study.gates import Expected
from unitrain.study.workshop import Built, Workshop

BASELINE = "fp32"
FLOAT = Expected()
INTEGERS = Expected(integers=True, differs=True, not_larger=True)
Needs = Literal["file", "run", "training"]


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
        ``file``: any ONNX file will do; ``run``: the graph of a trained run is rewritten; ``training``: and trained
        further, which is done only when the variant is named.
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
    Variant("fp16", "float16 inside, float32 outside", _half, Expected(differs=True, not_larger=True)),
    Variant("int8-weights", "weights of 8 bits in blocks, products in int8", partial(_weights, bits=8), INTEGERS),
    Variant("int4-weights", "weights of 4 bits in blocks, products in int8", partial(_weights, bits=4), INTEGERS),
)

VARIANTS: dict[str, Variant] = {variant.name: variant for variant in _ALL}


def choose(named: Sequence[str] | None, *, is_run: bool) -> list[Variant]:
    """Return the variants to be made, the float model first.

    Parameters
    ----------
    named
        Names; by default all that need no training, and of a file those that need no run.

    Raises
    ------
    InputError
        A name is unknown.
    """
    if named is None:
        return [item for item in _ALL if item.needs == "file" or (item.needs == "run" and is_run)]
    for name in named:
        if name not in VARIANTS:
            raise unknown_name("variant", name, VARIANTS)
    return [item for item in _ALL if item.name == BASELINE or item.name in named]
