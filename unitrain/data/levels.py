"""Scaling of many series, each by its own training rows: what is 100 in one series is not 100 in another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from unitrain.data.raw import Array, Raw, show
from unitrain.data.windows import stretches
from unitrain.spec.base import Spec
from unitrain.spec.data import DataSpec, NumericScaling
from unitrain.spec.errors import InputError, did_you_mean
from unitrain.spec.sources.series import Series


class Level(Spec):
    """Numbers of one series -> (x - shift) / scale, by column; those of features, and those of targets."""

    features: dict[str, tuple[float, float]] = {}
    targets: dict[str, tuple[float, float]] = {}


def fit_levels(raw: Raw, spec: DataSpec, features: Iterable[str], targets: Iterable[str]) -> dict[str, Level]:
    """Fit the scaling of each series on the training part; nothing where all are scaled together.

    Parameters
    ----------
    features, targets
        Columns that the model takes, and that it forecasts for outputs that are numbers.

    Raises
    ------
    InputError
        Numbers are too large to scale.
    """
    if not _each(spec) or raw.series is None:
        return {}
    named: dict[str, NumericScaling] = {}
    for name in features:
        stated = spec.per_column.get(name, spec.numeric)
        if raw.features[name].dtype != object and stated in ("standardise", "min_max"):
            named[name] = stated
    scaled = [name for name in targets if spec.target_scaling != "none" and raw.targets[name].dtype != object]
    return {
        str(raw.series[begin]): Level(
            features={name: _fit(raw, name, raw.features[name][begin:end], how) for name, how in named.items()},
            targets={name: _fit(raw, name, raw.targets[name][begin:end], "standardise") for name in scaled},
        )
        for begin, end in stretches(raw)
    }


def without_scaling(spec: DataSpec) -> DataSpec:
    """Return what is left to be fitted of the numbers where each series has been scaled by itself."""
    if not _each(spec):
        return spec
    left = {name: how for name, how in spec.per_column.items() if how in ("one_hot", "ordinal")}
    return spec.model_copy(update={"numeric": "none", "target_scaling": "none", "per_column": left})


def _each(spec: DataSpec) -> bool:
    return isinstance(spec.source, Series) and spec.source.series is not None and spec.source.scaling == "each"


def _fit(raw: Raw, name: str, values: Array, how: NumericScaling) -> tuple[float, float]:
    """Return shift and scale of the values that are there."""
    there = values[~np.isnan(values)] if values.dtype.kind == "f" else values.astype(np.float64)
    if not len(there):
        return 0.0, 1.0
    with np.errstate(over="ignore", invalid="ignore"):  # answered below
        low, high = float(there.min()), float(there.max())
        shift, scale = (low, high - low) if how == "min_max" else (float(there.mean()), float(there.std()))
    if low == high or scale == 0:
        scale = 1.0
    if not (np.isfinite(shift) and np.isfinite(scale)):
        raise InputError(f"'{name}' has numbers too large to scale", file=raw.origin.file, found=f"{low:g} to {high:g}")
    return shift, scale


def apply_levels(raw: Raw, levels: Mapping[str, Level]) -> Raw:
    """Scale the rows of each series by its level; without levels they stay.

    Raises
    ------
    InputError
        A series that training did not have.
    """
    if not levels or raw.series is None:
        return raw
    features = dict(raw.features)
    targets = dict(raw.targets)
    one = next(iter(levels.values()))
    for values, names in ((features, one.features), (targets, one.targets)):
        values.update({name: values[name].astype(np.float64) for name in names if name in values})
    for begin, end in stretches(raw):
        level = _level(raw, levels, begin)
        for values, scales in ((features, level.features), (targets, level.targets)):
            for name, (shift, scale) in scales.items():
                if name in values:
                    with np.errstate(over="ignore"):  # what is not finite is answered where it is encoded
                        values[name][begin:end] = (values[name][begin:end] - shift) / scale
    return replace(raw, features=features, targets=targets)


def _level(raw: Raw, levels: Mapping[str, Level], row: int) -> Level:
    assert raw.series is not None
    name = str(raw.series[row])
    if name not in levels:
        raise raw.error(
            row,
            "a series that training did not have, each of which is scaled by its own training rows",
            found=show(name),
            hint=did_you_mean(name, levels) or "train with `scaling: together` in the source to forecast others",
        )
    return levels[name]
