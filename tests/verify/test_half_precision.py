"""Verification in 16 bits: rounding, the verdict at the ends of float16's range, right models, and planted faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance.test_faults import FAULTS, graph_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from unitrain.backends import load_backend
from unitrain.backends.contract import Precision, Settings
from unitrain.backends.precision import MIXED, computed_in
from unitrain.backends.torch.registry import IMPLEMENTATIONS, Made
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.layers import LeakyRelu
from unitrain.spec.model import ModelSpec
from unitrain.verify.rounding import FORMATS, rounded, scaled_gradients
from unitrain.verify.session import verify
from unitrain.verify.source import read_subject
from unitrain.verify.subject import Subject, model_subject
from unitrain.verify.verdict import judge
from unitrain.weights.random import stream

Array = np.ndarray[Any, Any]
MODELS = Path(__file__).parents[2] / "models"
HALVES: tuple[Precision, ...] = ("bfloat16", "float16")


def torch_rounded(array: Array, precision: Precision) -> Array:
    result: Array = torch.from_numpy(array).to(getattr(torch, precision)).float().numpy()
    return result


def same_bits(left: Array, right: Array) -> bool:
    return bool((np.isnan(left) == np.isnan(right)).all()) and np.array_equal(
        np.where(np.isnan(left), 0, left).view(np.int32), np.where(np.isnan(right), 0, right).view(np.int32)
    )


@given(stn.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32)))
def test_rounding_is_that_of_torch(array: Array) -> None:
    for precision in HALVES:
        assert same_bits(rounded(array, precision), torch_rounded(array, precision))


@pytest.mark.parametrize("precision", HALVES)
def test_rounding_goes_to_even_at_ties_and_over_the_end_to_infinity(precision: Precision) -> None:
    form = FORMATS[precision]
    unit = 2.0 ** (1 - form.digits)
    ties = np.array([1 + unit / 2, 1 + 3 * unit / 2, -1 - unit / 2], np.float32)
    np.testing.assert_array_equal(rounded(ties, precision), np.array([1, 1 + 2 * unit, -1], np.float32))
    largest = form.largest
    half_a_unit = 2.0 ** (form.highest - form.digits)
    ends = np.array([largest, largest + 0.99 * half_a_unit, largest + half_a_unit, -largest - half_a_unit])
    np.testing.assert_array_equal(rounded(ends, precision), [largest, largest, np.inf, -np.inf])
    smallest = 2.0 ** (form.lowest - form.digits + 1)
    tiny = np.array([smallest, 0.5 * smallest, 0.51 * smallest, -0.4 * smallest])
    np.testing.assert_array_equal(rounded(tiny, precision), [smallest, 0.0, smallest, -0.0])


def test_float64_is_rounded_once() -> None:
    # Rounded to float32 first, this would become a tie and go down to 1.
    just_above_a_tie = np.array([1 + 2.0**-8 + 2.0**-40])
    assert rounded(just_above_a_tie, "bfloat16")[0] == 1 + 2.0**-7


def test_the_formats_are_those_of_torch() -> None:
    for precision, form in FORMATS.items():
        info = torch.finfo(getattr(torch, computed_in(precision)))
        assert (form.largest, 2.0**form.lowest, 2 * form.roundoff) == (info.max, info.tiny, info.eps)


def test_gradients_are_scaled_by_a_power_of_two() -> None:
    gradient = stream(0, "test").normal(size=1000).astype(np.float32) * np.float32(1e-7)
    scaled = scaled_gradients({"y": gradient}, "float16")["y"]
    assert 0.5 <= np.abs(scaled).max() < 1
    scale = 2.0 ** np.round(np.log2(scaled[0] / gradient[0]))
    np.testing.assert_array_equal(scaled, rounded(gradient * scale, "float16"))
    np.testing.assert_array_equal(scaled_gradients({"y": gradient}, "float32")["y"], gradient)
    assert not scaled_gradients({"y": np.zeros(3, np.float32)}, "float16")["y"].any()


@pytest.mark.parametrize("precision", HALVES)
def test_right_rounding_has_a_ratio_of_one_at_most_and_eight_units_fail(precision: Precision) -> None:
    reference = stream(0, "test").normal(size=(64, 64))
    candidate, narrow = rounded(reference, precision), reference.astype(np.float32)
    verdict = judge(candidate, reference, narrow, precision=precision)
    assert verdict.passed
    assert 0.1 < verdict.ratio <= 1
    assert not judge(candidate, reference, narrow).passed, "by default the candidate counts as float32"
    wrong = candidate * np.float32(1 + 8 * FORMATS[precision].roundoff)
    assert not judge(wrong, reference, narrow, precision=precision).passed


def test_below_its_normal_numbers_float16_is_still_compared() -> None:
    reference = stream(0, "test").normal(size=2000) * 1e-6
    right = rounded(reference, "float16")
    assert judge(right, reference, reference.astype(np.float32), precision="float16").passed
    assert not judge(np.zeros_like(right), reference, reference.astype(np.float32), precision="float16").passed
    lost = reference * 1e-2
    assert judge(np.zeros_like(right), lost, lost.astype(np.float32), precision="float16").passed


def test_flushed_numbers_of_bfloat16_pass() -> None:
    reference = np.full(5, 1e-40)
    assert judge(np.zeros(5, np.float32), reference, reference.astype(np.float32), precision="bfloat16").passed


def test_infinity_stands_where_the_reference_rounds_to_it() -> None:
    reference = np.array([1e6, -1e6, 1.0])
    narrow = reference.astype(np.float32)
    infinite = np.array([np.inf, -np.inf, 1.0], np.float32)
    assert judge(infinite, reference, narrow, precision="float16").passed
    assert not judge(narrow, reference, narrow, precision="float16").passed
    assert not judge(-infinite, reference, narrow, precision="float16").passed
    assert judge(narrow, reference, narrow, precision="bfloat16").passed


def test_near_the_largest_number_either_side_is_right() -> None:
    for exact in (65500.0, 65530.0):
        reference = np.array([exact, 1.0])
        narrow = reference.astype(np.float32)
        for found in (65504.0, np.inf):
            assert judge(np.array([found, 1.0], np.float32), reference, narrow, precision="float16").passed
        for found in (-np.inf, np.nan):
            assert not judge(np.array([found, 1.0], np.float32), reference, narrow, precision="float16").passed
        assert not judge(np.array([60000.0, 1.0], np.float32), reference, narrow, precision="float16").passed
    far = np.array([50000.0, 1.0])
    assert not judge(np.array([np.inf, 1.0], np.float32), far, far.astype(np.float32), precision="float16").passed


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("model", ["mlp", "lenet5", "cnn", "resnet20"])
def test_right_models_pass(model: str, precision: Precision) -> None:
    subject = read_subject(MODELS / f"{model}.yaml", [], None)
    report = verify(subject, {"torch": "cpu", "keras": "cpu", "onnx": "cpu"}, precision=precision)
    assert report.passed, [str(cause) for cause in report.causes]
    assert report.levels == ("forward", "backward")
    assert any("step, trajectory, transfer" in note for note in report.notes)
    assert any(note.startswith("onnx is left out") for note in report.notes) == (precision == "bfloat16")
    assert {item.backend for item in report.findings} == {"torch", "keras", "onnx"} - (
        {"onnx"} if precision == "bfloat16" else set()
    )
    assert all(not item.excuse for item in report.findings if item.name.isolated)


def small_subject() -> Subject:
    layers: list[dict[str, Any]] = [
        {"type": "dense", "name": "first", "units": 32},
        {"type": "leaky_relu", "name": "bend"},
        {"type": "dense", "name": "last", "units": 4},
    ]
    return model_subject(
        "small", resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [64]}}, "layers": layers}))
    )


@pytest.mark.parametrize("precision", MIXED)
def test_right_models_pass_in_mixed_precision(precision: Precision) -> None:
    subject = read_subject(MODELS / "resnet20.yaml", [], None)
    report = verify(subject, {"torch": "cpu", "keras": "cpu", "onnx": "cpu"}, precision=precision)
    assert report.passed, [str(cause) for cause in report.causes]
    assert report.levels == ("forward", "backward")
    assert {item.backend for item in report.findings} == {"torch", "keras"}
    assert any(note.startswith("onnx is left out") for note in report.notes)


@pytest.mark.parametrize("precision", [*HALVES, *MIXED])
def test_a_planted_fault_is_named(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(small_subject(), {"torch": "cpu"}, precision=precision).passed
    table: dict[Any, Any] = IMPLEMENTATIONS
    monkeypatch.setitem(table, LeakyRelu, lambda *_: Made(torch.nn.LeakyReLU(0.3), {}))
    report = verify(small_subject(), {"torch": "cpu"}, precision=precision)
    assert not report.passed
    assert [(cause.backend, cause.part) for cause in report.causes] == [("torch", "bend")]
    assert "0.3" in report.causes[0].diagnosis


def test_who_cannot_is_refused_by_name_where_nobody_else_is_left() -> None:
    for backend, precision in (("onnx", "bfloat16"), ("numpy", "bfloat16"), ("numpy", "float16")):
        with pytest.raises(InputError, match=f"backend '{backend}' does not compute in {precision}"):
            verify(small_subject(), {backend: "cpu"}, precision=precision)  # type: ignore[arg-type]  # a Precision
    with pytest.raises(InputError, match="no training"):
        verify(small_subject(), {"torch": "cpu"}, levels=["step"], precision="bfloat16")


# Faults that lie below the rounding of 16 bits, at inputs of unit variance: see docs/verify.md.
INVISIBLE = {
    "layer norm epsilon",
    "batch norm epsilon",
    "group norm epsilon",
    "RMS norm epsilon",
    "GELU by tanh",
    "dropout scaled by another rate",
}
LAYER_NORM = ([{"type": "layer_norm"}], [{"type": "layer_norm", "epsilon": 1e-3}], (64,))
BATCH_NORM = ([{"type": "batch_norm"}], [{"type": "batch_norm", "epsilon": 1e-3}], (6, 64))
CASES: dict[str, tuple[Any, float, bool]] = {
    **{name: (fault, 1.0, name not in INVISIBLE) for name, fault in FAULTS.items()},
    "layer norm epsilon 1e-3 at a standard deviation of 0.1": (LAYER_NORM, 0.1, True),
    "batch norm epsilon 1e-3 at a standard deviation of 0.1": (BATCH_NORM, 0.1, True),
    "layer norm epsilon 1e-6 at a standard deviation of 0.01": (FAULTS["layer norm epsilon"], 0.01, True),
    "RMS norm epsilon 1e-5 at a standard deviation of 0.01": (FAULTS["RMS norm epsilon"], 0.01, True),
}


def tensors(fault: Any, wrong: bool, backend: str, precision: Any, given_in: Precision, deviation: float) -> Any:
    graph = graph_of(fault[wrong], fault[2])
    weights = {
        name: rounded(
            stream(1, "weight", name).uniform(0.5, 1.5, parameter.shape)
            * (deviation**2 if name.endswith("variance") else 1.0),
            given_in,
        )
        for name, parameter in graph.parameters.items()
    }
    (output,) = graph.outputs
    x = rounded(stream(1, "input").normal(size=(16, *fault[2])) * deviation, given_in)
    dy = rounded(stream(1, "gradient").normal(size=(16, *graph.shape(output))), given_in)
    program = load_backend(backend).compile(graph, weights, Settings(precision=precision))
    outputs, by_input, by_parameter = program.differentiate({"x": x}, {output: dy})
    return {"output": outputs[output], **by_input, **by_parameter}


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", CASES)
def test_faults_are_caught_where_rounding_does_not_hide_them(name: str, precision: Precision) -> None:
    fault, deviation, visible = CASES[name]
    reference = tensors(fault, False, "numpy", "float64", precision, deviation)
    narrow = tensors(fault, False, "numpy", "float32", precision, deviation)

    def passed(wrong: bool) -> bool:
        found = tensors(fault, wrong, "torch", precision, precision, deviation)
        assert all(array.dtype == np.float32 for array in found.values())
        return all(judge(found[key], reference[key], narrow[key], precision=precision).passed for key in reference)

    assert passed(wrong=False)
    assert passed(wrong=True) == (not visible)
