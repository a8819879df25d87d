"""Every layer with every option on every backend, against the float64 NumPy reference by the verdict rule.

All cases stand in one model, a branch each: a program is compiled once, and a test looks at one branch.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from conformance.cases import (
    CASES,
    Array,
    Case,
    case_inputs,
    case_output_gradient,
    case_weights,
    input_name,
    suite_graph,
)

from unitrain.backends import BACKENDS, TRAINING_BACKENDS, load_backend
from unitrain.backends.contract import Precision, Program, Settings
from unitrain.spec.layers import DroppingLayer
from unitrain.verify.verdict import judge

MODES = {"training": True, "inference": False}
# Every backend in float32; the frameworks in float64 too, which proves the reference by another hand.
RUNS: list[tuple[str, Precision]] = [
    *((name, "float32") for name in BACKENDS),
    *((name, "float64") for name in BACKENDS if name != "numpy"),
]
STEP = 5


def modes_of(backend: str) -> dict[str, bool]:
    """Return the modes that a backend has: one that does not train, inference only."""
    return {mode: training for mode, training in MODES.items() if not training or backend in TRAINING_BACKENDS}


# Name of a case's layer in the model of all cases.
SUITE = {f"{case.layer.type}_{number}": case for number, case in enumerate(CASES)}
Tensors = dict[str, Array]


@cache
def program(backend: str, precision: Precision) -> Program:
    weights: Tensors = {}
    for name, case in SUITE.items():
        weights |= case_weights(case, name)
    settings = Settings(precision=precision, seed=7)
    return load_backend(backend).compile(suite_graph(SUITE), weights, settings)


def inputs(precision: Precision) -> Tensors:
    drawn: Tensors = {}
    for name, case in SUITE.items():
        drawn |= case_inputs(case, name)
    return {name: array.astype(precision) if array.dtype.kind == "f" else array for name, array in drawn.items()}


@cache
def tensors(backend: str, precision: Precision, training: bool) -> Tensors:
    """Run all cases at once: outputs, and all gradients if the backend has any, each under a name that says what."""
    if backend not in TRAINING_BACKENDS:
        predicted = program(backend, precision).predict(inputs(precision))
        return {f"output {name}": array for name, array in predicted.items()}
    gradients = {name: case_output_gradient(case).astype(precision) for name, case in SUITE.items()}
    outputs, by_input, by_parameter = program(backend, precision).differentiate(
        inputs(precision), gradients, training=training, step=STEP
    )
    return {
        **{f"output {name}": array for name, array in outputs.items()},
        **{f"gradient by input {name}": array for name, array in by_input.items()},
        **{f"gradient by parameter {name}": array for name, array in by_parameter.items()},
    }


@cache
def activations(backend: str, precision: Precision, training: bool) -> Tensors:
    return program(backend, precision).activations(inputs(precision), training=training, step=STEP)


def names_of(backend: str, name: str, case: Case) -> list[str]:
    """Name all tensors that a case must give."""
    if backend not in TRAINING_BACKENDS:
        return [f"output {name}"]
    trainable = [local for local, parameter in case.layer.parameters(*case.input_shapes).items() if parameter.trainable]
    return [
        f"output {name}",
        *(
            f"gradient by input {input_name(name, position)}"
            for position, kind in enumerate(case.kinds)
            if kind == "float"
        ),
        *(f"gradient by parameter {name}.{local}" for local in trainable),
    ]


@pytest.mark.parametrize(("backend", "precision", "mode"), [(*run, mode) for run in RUNS for mode in modes_of(run[0])])
def test_the_program_gives_exactly_the_tensors_of_the_cases(backend: str, precision: Precision, mode: str) -> None:
    found = tensors(backend, precision, MODES[mode])
    assert sorted(found) == sorted(name for key, case in SUITE.items() for name in names_of(backend, key, case))
    assert {array.dtype for array in found.values()} == {np.dtype(precision)}


@pytest.mark.parametrize("name", SUITE)
@pytest.mark.parametrize(("backend", "precision"), RUNS)
def test_layer(backend: str, precision: Precision, name: str) -> None:
    faults = []
    for mode, training in modes_of(backend).items():
        found = tensors(backend, precision, training)
        reference = tensors("numpy", "float64", training)
        numpy32 = tensors("numpy", "float32", training)
        for tensor in names_of(backend, name, SUITE[name]):
            verdict = judge(found[tensor], reference[tensor], numpy32[tensor])
            if not verdict.passed:
                faults.append(f"{mode}, {tensor}: {verdict}")
    assert not faults, "\n".join([f"{SUITE[name].label} in {backend}, {precision}", *faults])


@pytest.mark.parametrize("backend", TRAINING_BACKENDS)
def test_dropout_draws_the_same_mask_on_every_backend(backend: str) -> None:
    dropped = [f"output {name}" for name, case in SUITE.items() if isinstance(case.layer, DroppingLayer)]
    reference = tensors("numpy", "float32", True)
    assert any((reference[name] == 0).any() for name in dropped)
    for name in dropped:
        np.testing.assert_array_equal(tensors(backend, "float32", True)[name], reference[name], err_msg=name)


@pytest.mark.parametrize(("backend", "mode"), [(name, mode) for name in BACKENDS for mode in modes_of(name)])
def test_activations_are_those_of_the_reference(backend: str, mode: str) -> None:
    found = activations(backend, "float32", MODES[mode])
    reference = activations("numpy", "float64", MODES[mode])
    numpy32 = activations("numpy", "float32", MODES[mode])
    assert found.keys() == reference.keys() == SUITE.keys()
    for name, array in found.items():
        verdict = judge(array, reference[name], numpy32[name])
        assert verdict.passed, f"{SUITE[name].label} in {backend}, {mode}: {verdict}"
