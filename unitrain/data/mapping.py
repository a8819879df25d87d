"""Which features make up which model input, and which target belongs to which output."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from unitrain.data.raw import Raw
from unitrain.spec.data import DataSpec
from unitrain.spec.errors import FieldPath, InputError, did_you_mean
from unitrain.spec.sources.arrays import Npy, Npz
from unitrain.spec.sources.series import Series
from unitrain.spec.sources.table import Table


def map_features(spec: DataSpec, raw: Raw, inputs: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return model input -> feature names, in the order of the model's inputs.

    Raises
    ------
    InputError
        An unknown input or column, an input without features, or several inputs and nothing stated.
    """
    stated: Mapping[str, Sequence[str]] = spec.features
    field: FieldPath = ("features",)
    if not stated and isinstance(spec.source, Npz):
        stated, field = {name: (key,) for name, key in spec.source.inputs.items()}, ("source", "inputs")
    if not stated and isinstance(spec.source, Npy):
        stated, field = {name: (name,) for name in spec.source.inputs}, ("source", "inputs")
    if not stated and len(inputs) == 1:
        stated = {next(iter(inputs)): tuple(raw.features)}
    if not stated and set(inputs) <= set(raw.features):
        stated = {name: (name,) for name in inputs}
    for name, names in stated.items():
        _check(name, inputs, "model input", (*field, name))
        for feature in names:
            _check(feature, raw.features, "column", (*field, name), f" in {raw.origin.file}")
    for name in inputs:
        if name not in stated:
            raise InputError(
                f"nothing says which columns make the model input '{name}'",
                field=field,
                allowed=", ".join(raw.features),
                hint=f"features: {{{name}: [column, ...]}}",
            )
    return {name: tuple(stated[name]) for name in inputs}


def map_targets(spec: DataSpec, raw: Raw, outputs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return model output -> target names, for each of ``outputs``.

    Raises
    ------
    InputError
        An unknown output, or an output without a target.
    """
    source = spec.source
    stated: dict[str | None, tuple[str, ...]]
    if isinstance(source, (Table, Series)):
        stated = source.target_columns()
    elif isinstance(source, Npy):
        stated = {output: (output,) for output in source.targets}
    elif isinstance(source, Npz):
        stated = {output: (key,) for output, key in source.targets.items()}
    else:
        stated = {None: tuple(raw.targets)}
    if None in stated:
        if len(outputs) > 1:
            raise InputError(
                "the model has several outputs, and the source one target",
                field=("source", "target"),
                allowed=f"a column for each of {', '.join(outputs)}",
                hint=f"target: {{{outputs[0]}: column, ...}}",
            )
        stated = {outputs[0]: stated[None]} if outputs else {}
    for output in stated:
        _check(str(output), outputs, "model output", ("source", "targets", str(output)))
    for output in outputs:
        if output not in stated:
            raise InputError(
                f"no target for the model output '{output}'",
                field=("source",),
                found=", ".join(str(name) for name in stated) or "no targets",
                hint=f"targets: {{{output}: ...}}",
            )
    return {output: stated[output] for output in outputs}


def _check(name: str, known: Collection[str], kind: str, field: FieldPath, where: str = "") -> None:
    if name not in known:
        raise InputError(
            f"no {kind} '{name}'{where}",
            field=field,
            found=name,
            allowed=", ".join(known),
            hint=did_you_mean(name, known),
        )
