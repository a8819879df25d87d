"""What a user may write for loss, optimizer, schedule and metrics, and what is said when it is wrong."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from unitrain.spec import losses, metrics, optimizers, schedules
from unitrain.spec.base import Spec, validate
from unitrain.spec.errors import InputError, Problem
from unitrain.spec.losses import Loss
from unitrain.spec.metrics import Metric
from unitrain.spec.optimizers import Optimizer
from unitrain.spec.schedules import Schedule
from unitrain.spec.yaml import parse_yaml


class Training(Spec):
    """The part of a recipe that these specifications fill."""

    loss: Loss = losses.MeanSquaredError()
    optimizer: Optimizer = optimizers.Sgd()
    schedule: Schedule | None = None
    metrics: tuple[Metric, ...] = ()


def kinds(union: Any) -> list[type[Spec]]:
    """The classes of ``Annotated[Annotated[A | B, discriminator], by name]``."""
    return list(get_args(get_args(union)[0]))


REQUIRED: dict[str, dict[str, Any]] = {
    "step": {"every": 2.5},
    "multi_step": {"milestones": [1.0, 2.0]},
    "exponential": {"factor": 0.9},
}
EVERY = [
    (field, kind)
    for field, union in (
        ("loss", Loss),
        ("optimizer", Optimizer),
        ("schedule", Schedule),
        ("metrics", Metric),
    )
    for kind in kinds(union)
]


def read(text: str) -> Training:
    return validate(Training, parse_yaml(text, file="recipe.yaml"))


def problem(text: str) -> Problem:
    with pytest.raises(InputError) as caught:
        read(text)
    (found,) = caught.value.problems
    assert found.file == "recipe.yaml"
    return found


def name_of(kind: type[Spec]) -> str:
    return str(kind.model_fields["type"].default)


@pytest.mark.parametrize(
    ("field", "kind"), EVERY, ids=lambda value: value if isinstance(value, str) else name_of(value)
)
def test_a_name_stands_for_its_mapping_and_comes_back(field: str, kind: type[Spec]) -> None:
    name = name_of(kind)
    options = REQUIRED.get(name, {})
    mapping = ", ".join(f"{key}: {value}" for key, value in {"type": name, **options}.items())
    text = f"{field}: [{{{mapping}}}]" if field == "metrics" else f"{field}: {{{mapping}}}"
    long = read(text)
    value: Any = getattr(long, field)
    found = value[0] if field == "metrics" else value
    assert type(found) is kind
    assert found == kind(**options)
    if not options:
        assert read(f"{field}: [{name}]" if field == "metrics" else f"{field}: {name}") == long
    assert read(long.to_yaml()) == long
    assert found.to_plain()["type"] == name


fraction = st.floats(0.0, 0.999)
positive = st.floats(1e-6, 1e3)
common = {
    "lr": positive,
    "weight_decay": st.floats(0.0, 1.0),
    "l2": st.floats(0.0, 1.0),
    "decay_all": st.booleans(),
    "clip_value": st.none() | positive,
    "clip_norm": st.none() | positive,
    "ema": st.none() | st.floats(0.001, 0.999),
}
some_metrics = st.lists(
    st.one_of(
        st.builds(metrics.TopK, k=st.integers(1, 9), output=st.none() | st.sampled_from(["a", "no", "1", "1e3", "~"])),
        st.builds(metrics.F1, average=st.none() | st.sampled_from(["binary", "macro", "micro", "weighted"])),
        st.builds(metrics.R2),
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(
    loss=st.one_of(
        st.builds(
            losses.CrossEntropy,
            class_weights=st.none() | st.lists(st.floats(0.0, 9.0), min_size=1, max_size=4).map(tuple),
            label_smoothing=fraction,
            ignore_index=st.none() | st.integers(-100, 255),
        ),
        st.builds(losses.Huber, delta=positive),
    ),
    optimizer=st.one_of(
        st.builds(optimizers.Sgd, momentum=st.floats(0.01, 0.99), nesterov=st.booleans(), **common),
        st.builds(optimizers.AdamW, beta1=fraction, beta2=fraction, epsilon=positive, **common),
        st.builds(optimizers.RmsProp, momentum=fraction, centred=st.booleans(), **common),
    ),
    schedule=st.one_of(
        st.none(),
        st.builds(schedules.MultiStepSchedule, milestones=st.lists(positive, min_size=1, max_size=3).map(tuple)),
        st.builds(schedules.CosineSchedule, period=st.none() | positive, warmup=positive),
        st.builds(schedules.PlateauSchedule, monitor=st.sampled_from(["loss", "a/top_5"]), patience=st.integers(0, 9)),
    ),
    measured=some_metrics,
)
def test_what_is_written_reads_back_equal(loss: Any, optimizer: Any, schedule: Any, measured: list[Any]) -> None:
    spec = Training(loss=loss, optimizer=optimizer, schedule=schedule, metrics=tuple(measured))
    assert read(spec.to_yaml()) == spec


def test_defaults_are_left_out() -> None:
    assert optimizers.AdamW().to_plain() == {"type": "adamw"}
    assert optimizers.AdamW(weight_decay=0.0).to_plain() == {"type": "adamw", "weight_decay": 0.0}
    assert optimizers.Adam(weight_decay=0.0).to_plain() == {"type": "adam"}


@pytest.mark.parametrize(
    ("text", "line", "field", "found", "hint"),
    [
        ("loss: cros_entropy", 1, ("loss", "type"), "cros_entropy", "cross_entropy"),
        ("loss: mse\noptimizer: addam", 2, ("optimizer", "type"), "addam", "adam"),
        ("optimizer:\n  lr: 0.1\n  type: SGD", 3, ("optimizer", "type"), "SGD", "sgd"),
        ("schedule:\n  type: cosin", 2, ("schedule", "type"), "cosin", "cosine"),
        ("metrics:\n  - accuracy\n  - acuracy", 3, ("metrics", 1, "type"), "acuracy", "accuracy"),
        ("optimizer:\n  type: adam\n  beta_1: 0.9", 3, ("optimizer", "beta_1"), "beta_1", "beta1"),
        ("loss:\n  type: huber\n  detla: 2", 3, ("loss", "detla"), "detla", "delta"),
        ("schedule:\n  type: cosine\n  perod: 2", 3, ("schedule", "perod"), "perod", "period"),
        ("metrics:\n  - mse\n  - type: f1\n    averge: macro", 4, ("metrics", 1, "averge"), "averge", "average"),
        ("metrics:\n  - {type: f1, average: makro}", 2, ("metrics", 0, "average"), "'makro'", "macro"),
        ("schedule: {type: cosine, unit: epochs}", 1, ("schedule", "unit"), "'epochs'", "epoch"),
    ],
)
def test_misspelt(text: str, line: int, field: tuple[Any, ...], found: str, hint: str) -> None:
    said = problem(text)
    assert (said.line, said.field, said.found) == (line, field, found)
    assert said.hint == f"did you mean '{hint}'?"
    assert said.allowed is not None
    assert hint in said.allowed


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("schedule: step", ("schedule", "every")),
        ("optimizer: {type: adam, lr: 0}", ("optimizer", "lr")),
        ("optimizer: {type: adam, lr: .inf}", ("optimizer", "lr")),
        ("optimizer: {type: adam, lr: .nan}", ("optimizer", "lr")),
        ("optimizer: {type: adam, beta1: 1.0}", ("optimizer", "beta1")),
        ("optimizer: {type: sgd, momentum: -0.1}", ("optimizer", "momentum")),
        ("optimizer: {type: sgd, weight_decay: -1}", ("optimizer", "weight_decay")),
        ("optimizer: {type: sgd, clip_norm: 0}", ("optimizer", "clip_norm")),
        ("optimizer: {type: sgd, ema: 1.0}", ("optimizer", "ema")),
        ("loss: {type: cross_entropy, label_smoothing: 1.0}", ("loss", "label_smoothing")),
        ("loss: {type: cross_entropy, class_weights: [1, -2]}", ("loss", "class_weights", 1)),
        ("loss: {type: binary_cross_entropy, class_weights: [1]}", ("loss", "class_weights", 1)),
        ("loss: {type: huber, delta: 0}", ("loss", "delta")),
        ("metrics: [{type: top_k, k: 0}]", ("metrics", 0, "k")),
        ("schedule: {type: multi_step, milestones: []}", ("schedule", "milestones")),
        ("schedule: {type: cosine, multiply: 0}", ("schedule", "multiply")),
        ("schedule: {type: one_cycle, rise: 1}", ("schedule", "rise")),
        ("schedule: {type: one_cycle, warmup: 3}", ("schedule", "warmup")),
        ("schedule: {type: plateau, factor: 1}", ("schedule", "factor")),
        ("optimizer: {lr: 0.1}", ("optimizer",)),
        ("optimizer: []", ("optimizer",)),
        ("loss: 3", ("loss",)),
        ("metrics: accuracy", ("metrics",)),
    ],
)
def test_refused(text: str, field: tuple[Any, ...]) -> None:
    said = problem(text)
    assert (said.line, said.field) == (1, field)


def test_nesterov_needs_momentum() -> None:
    said = problem("loss: mse\noptimizer:\n  type: sgd\n  nesterov: true")
    assert said.message == "nesterov needs a momentum above 0"
    assert said.field == ("optimizer",)
    assert read("optimizer: {type: sgd, nesterov: true, momentum: 0.9}").optimizer == optimizers.Sgd(
        nesterov=True, momentum=0.9
    )
    with pytest.raises(ValidationError, match="nesterov needs a momentum"):
        optimizers.Sgd(nesterov=True)


def test_centred_rmsprop_needs_decay() -> None:
    said = problem("loss: mse\noptimizer:\n  type: rmsprop\n  decay: 0.0\n  centred: true")
    assert said.message == "centred needs a decay above 0: one gradient alone has no variance to divide by"
    assert said.field == ("optimizer",)
    assert read("optimizer: {type: rmsprop, decay: 0.0}").optimizer == optimizers.RmsProp(decay=0.0)


def test_specifications_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        optimizers.Adam().lr = 1.0  # type: ignore[misc]  # what the test is about
