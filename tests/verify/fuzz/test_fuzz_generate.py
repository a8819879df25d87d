"""Drawn cases: the same for the same seed and number, valid, small, and of every layer and option there is."""

from __future__ import annotations

from math import prod
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field, PositiveInt

from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.layers import LAYER_TYPES, Dense
from unitrain.spec.layers.base import LayerSpec, Shape
from unitrain.spec.model import ModelSpec
from unitrain.spec.yaml import parse_yaml
from unitrain.verify.fuzz.case import VerifyCase, is_case, read_case
from unitrain.verify.fuzz.catalogue import LARGEST_VALUE, profile, rows, turn
from unitrain.verify.fuzz.conditioning import well_conditioned
from unitrain.verify.fuzz.coverage import KINDS, Coverage, possible
from unitrain.verify.fuzz.fields import option_of, options
from unitrain.verify.fuzz.generate import TURNS, WEIGHTS, draw_case, draw_model

COUNT = 600


@pytest.fixture(scope="module")
def cases() -> list[VerifyCase]:
    return [draw_case(3, number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def coverage(cases: list[VerifyCase]) -> Coverage:
    covered = Coverage()
    for case in cases:
        covered.add(case)
    return covered


def test_a_case_depends_on_seed_and_number_alone(cases: list[VerifyCase]) -> None:
    for number in (150, 7, 0, 42):
        assert draw_case(3, number) == cases[number]
    assert draw_model(4, 7) != draw_model(3, 7)


def test_no_two_cases_are_equal(cases: list[VerifyCase]) -> None:
    assert len({case.to_yaml() for case in cases}) == COUNT


def test_cases_resolve_and_are_small(cases: list[VerifyCase]) -> None:
    for case in cases:
        graph = case.graph()
        assert 1 <= len(case.model.inputs) <= 4
        assert 1 <= len(graph.nodes) <= 40
        assert graph.parameter_count(trainable=True) <= WEIGHTS
        assert all(prod(node.output_shape) <= LARGEST_VALUE for node in graph.nodes)
        assert case.loss.keys() == graph.outputs.keys()
        assert well_conditioned(graph, case.training.batch_size)


def test_a_quotient_by_what_depends_on_a_quotient_is_not_well_conditioned() -> None:
    def chained(repeat: int) -> bool:
        layers: list[dict[str, object]] = []
        for number, source in enumerate(["x", *(f"quotient{n}" for n in range(repeat - 1))]):
            layers.append({"type": "sigmoid", "name": f"gate{number}", "inputs": [source]})
            layers.append({"type": "divide", "name": f"quotient{number}", "inputs": [source, f"gate{number}"]})
        model = ModelSpec.model_validate({"inputs": {"x": {"shape": [4]}}, "layers": layers})
        return well_conditioned(resolve(model), 8)

    assert chained(1)
    assert not chained(2)


def test_what_shows_nothing_is_not_well_conditioned() -> None:
    def conditioned(shape: list[int], *layers: dict[str, object], batch: int = 1) -> bool:
        model = ModelSpec.model_validate({"inputs": {"x": {"shape": shape}}, "layers": layers})
        return well_conditioned(resolve(model), batch)

    assert not conditioned([2], {"type": "batch_norm"}, batch=2)
    assert conditioned([2], {"type": "batch_norm"}, batch=3)
    assert conditioned([3, 2], {"type": "batch_norm"})
    assert not conditioned([5, 2], {"type": "layer_norm"})
    assert conditioned([5, 2], {"type": "layer_norm", "axes": 2})
    assert not conditioned([1, 6], {"type": "group_norm", "groups": 3})
    assert conditioned([2, 6], {"type": "group_norm", "groups": 3})
    assert not conditioned([5, 2], {"type": "rms_norm"})
    for value, right in ((0.2, True), (-0.2, True), (0.21, False), (-0.5, False)):
        start = {"type": "constant", "value": value}
        assert conditioned([4, 3], {"type": "simple_rnn", "units": 5, "recurrent_initializer": start}) == right
    assert not conditioned([4, 3], {"type": "lstm", "units": 2, "recurrent_initializer": "ones"})
    assert conditioned([4, 3], {"type": "lstm", "units": 2})
    cube: dict[str, object] = {"type": "multiply", "name": "cube", "inputs": ["x", "x", "x"]}
    assert conditioned([2], cube, {"type": "multiply", "inputs": ["cube", "cube"]})
    assert not conditioned([2], cube, {"type": "multiply", "inputs": ["cube", "cube", "x"]})


def test_cases_can_be_written_and_read(cases: list[VerifyCase]) -> None:
    for case in cases:
        assert read_case(parse_yaml(case.written())) == case


def test_a_case_that_is_trained_as_by_default_is_a_model_file() -> None:
    model = draw_model(0, 5)
    document = parse_yaml(VerifyCase(model=model).written())
    assert "layers" in document.data
    assert ModelSpec.model_validate(document.data) == model
    assert read_case(document) == VerifyCase(model=model)


@pytest.mark.parametrize("kind", ["layers", "options", "training"])
def test_a_few_hundred_cases_cover_all_that_is_possible(coverage: Coverage, kind: str) -> None:
    # One or two rare options of an optimizer may still wait for their turn; of layers none may.
    assert len(coverage.missing(kind)) <= (2 if kind == "training" else 0), coverage.missing(kind)


def test_models_have_all_shapes_that_graphs_have(cases: list[VerifyCase], coverage: Coverage) -> None:
    plain = [case.to_plain()["model"] for case in cases]
    kinds = [[layer["type"] for layer in model["layers"]] for model in plain]
    graphs = [case.graph() for case in cases]
    counts = {
        "blocks": sum("blocks" in model for model in plain),
        "repeats": sum(any("repeat" in layer for layer in model["layers"]) for model in plain),
        "arguments": sum("arguments" in model for model in plain),
        "sharing": sum("shared" in kind for kind in kinds),
        "several inputs": sum(len(graph.inputs) > 1 for graph in graphs),
        "several outputs": sum(len(graph.outputs) > 1 for graph in graphs),
        "merges": sum(bool({"add", "multiply", "concatenate"} & set(kind)) for kind in kinds),
        "integers": sum(any(given.dtype == "integer" for given in graph.inputs.values()) for graph in graphs),
        "one output": sum(len(graph.outputs) == 1 for graph in graphs),
        "unnamed layers": sum("name" not in model["layers"][0] for model in plain),
        "several batches in an update": sum(case.training.accumulate > 1 for case in cases),
        "masks": sum(any("mask" in node.layer.side_names() for node in graph.nodes) for graph in graphs),
        "schedules": sum(case.schedule is not None for case in cases),
    }
    assert min(counts.values()) >= 5, counts
    assert len(coverage.seen["pairs"]) > 600


def test_all_rows_have_their_turn_in_every_round() -> None:
    every = sum(len(rows(layer)) for layer in LAYER_TYPES.values())
    for start in (0, every):
        drawn = [turn(9, number) for number in range(start, start + every)]
        assert {layer for layer, _ in drawn} == set(LAYER_TYPES.values())
        assert len({(layer, tuple((name, option.label) for name, option in row.items())) for layer, row in drawn}) > 200
    # Which is why a few hundred models are enough.
    assert every < COUNT * sum(TURNS) / len(TURNS)


def test_what_cannot_be_is_not_asked_for() -> None:
    labels = possible()["options"]
    assert "dense.bias_initializer = he" in labels
    # An orthogonal vector there is not, and RMS norm has no bias.
    assert "dense.bias_initializer = orthogonal" not in labels
    assert not any(label.startswith("rms_norm.bias_initializer") for label in labels)
    assert "conv1d > conv2d" not in possible()["pairs"]
    assert "conv2d > relu" in possible()["pairs"]
    assert "relu > embedding" not in possible()["pairs"]
    assert "flatten > embedding" in possible()["pairs"]


def test_side_inputs_have_the_kind_and_shape_that_is_wanted(cases: list[VerifyCase]) -> None:
    read = [
        (graph, node, side, name)
        for graph in (case.graph() for case in cases)
        for node in graph.nodes
        for side, names in node.layer.sides(node.inputs).items()
        for name in names
    ]
    assert {(node.layer.type, side) for _, node, side, _ in read} >= {("mean", "mask"), ("gather", "indices")}
    for graph, node, side, name in read:
        if side == "mask" and name in graph.inputs:
            assert (graph.inputs[name].low, graph.inputs[name].high) == (0, 1)
            assert graph.shape(name) in {(extent,) for shape in node.input_shapes for extent in shape}
    # A mask is read by two layers now and then, and indices lie within what they choose from.
    assert len({(id(graph), name) for graph, _, side, name in read if side == "mask"}) < len(read)


def test_the_options_of_a_side_input_are_none_and_given() -> None:
    assert [option.label for option in options(LAYER_TYPES["mean"])["mask"]] == ["none", "given"]
    assert [option.label for option in options(LAYER_TYPES["gather"])["indices"]] == ["given"]
    assert "mean.mask = given" in possible()["options"]
    # Rotary positions are those of one sequence.
    assert {"attention.key_value = given", "attention.position = rotary"} <= possible()["options"]


class _Fold(LayerSpec):
    """A layer that the fuzzer has never seen."""

    type: Literal["fold"] = "fold"
    accepts: ClassVar[Literal["float", "integer", "any"]] = "float"
    ways: Annotated[int, Field(ge=2)]
    steepness: Annotated[float, Field(gt=0.0, lt=4.0)] = 1.0
    direction: Literal["in", "out"] = "in"
    centre: bool = False
    depth: PositiveInt | None = None

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


def test_a_new_layer_is_drawn_from_its_types() -> None:
    labels = {name: [option.label for option in choices] for name, choices in options(_Fold).items()}
    assert labels == {
        "ways": ["2", "more"],
        "steepness": ["between"],
        "direction": ["in", "out"],
        "centre": ["false", "true"],
        "depth": ["1", "more", "none"],
    }
    assert {name: len(choices) for name, choices in profile(_Fold).possible.items()} == {
        name: len(choices) for name, choices in labels.items()
    }
    wanted = {(name, label) for name, choices in labels.items() for label in choices}
    assert {(name, option.label) for row in rows(_Fold) for name, option in row.items()} == wanted


def test_options_of_checked_values() -> None:
    dense = Dense.model_validate({"type": "dense", "units": 4, "kernel_initializer": "he_normal"})
    assert [option_of(dense, name) for name in ("units", "use_bias", "activation", "kernel_initializer")] == [
        "more",
        "true",
        "none",
        "he",
    ]
    conv = LAYER_TYPES["conv2d"].model_validate(
        {"type": "conv2d", "filters": 1, "kernel_size": [3, 2], "padding": [[0, 1], [0, 0]], "strides": 2}
    )
    found = {name: option_of(conv, name) for name in ("filters", "kernel_size", "padding", "strides", "dilation")}
    assert found == {
        "filters": "1",
        "kernel_size": "different",
        "padding": "different",
        "strides": "equal",
        "dilation": "1",
    }


def test_coverage_is_merged_and_stored(cases: list[VerifyCase], coverage: Coverage) -> None:
    first, second = Coverage(), Coverage()
    for number, case in enumerate(cases[:60]):
        (first if number < 25 else second).add(case)
    both = Coverage.from_plain(first.to_plain())
    both.merge(Coverage.from_plain(second.to_plain()))
    whole = Coverage()
    for case in cases[:60]:
        whole.add(case)
    assert both == whole
    assert whole.cases == 60
    lines = coverage.lines()
    assert len(lines) == len(KINDS)
    assert lines[0] == f"kinds of layers: {len(LAYER_TYPES)} of {len(LAYER_TYPES)}"
    assert all(len(line) <= 100 for line in Coverage().lines())


def test_mistakes_in_a_case_name_their_line() -> None:
    text = "model:\n  inputs: {x: {shape: [3]}}\n  layers:\n  - {type: dense, units: 2}\nloss:\n  logits: {loss: mse}\n"
    with pytest.raises(InputError) as caught:
        read_case(parse_yaml(text, "case.yaml"))
    problem = caught.value.problems[0]
    assert (problem.file, problem.line, problem.found, problem.allowed) == ("case.yaml", 6, "logits", "dense_1")
    with pytest.raises(InputError) as caught:
        read_case(parse_yaml(text.replace("units: 2", "units: 2, axis: 1"), "case.yaml"))
    assert caught.value.problems[0].line == 4
    with pytest.raises(InputError) as caught:
        read_case(parse_yaml(text.replace("[3]", "[]").replace("logits", "dense_1"), "case.yaml"))
    assert caught.value.problems[0].line == 4
    weights = text.replace("logits: {loss: mse}", "dense_1: {loss: {type: cross_entropy, class_weights: [1, 2, 3]}}")
    with pytest.raises(InputError) as caught:
        read_case(parse_yaml(weights, "case.yaml"))
    assert (caught.value.problems[0].line, caught.value.problems[0].allowed) == (6, "2")


def test_a_case_is_told_from_a_recipe_and_from_a_model() -> None:
    assert is_case(parse_yaml(draw_case(0, 1).to_yaml()))
    assert not is_case(parse_yaml("model: lenet.yaml\ndata: digits\n"))
    assert not is_case(parse_yaml("model: lenet.yaml\nmetrics: [accuracy]\n"))
    assert not is_case(parse_yaml(draw_model(0, 1).to_yaml()))
    assert not is_case(parse_yaml("- model"))


def test_a_case_says_how_it_is_trained() -> None:
    case = next(
        case
        for case in (draw_case(1, number) for number in range(100))
        if case.schedule is not None and case.training.accumulate > 1 and case.training.batch_size == 5
    )
    subject = case.subject("drawn")
    assert (subject.batch_size, subject.accumulate, subject.seed) == (5, case.training.accumulate, case.seed)
    assert subject.optimizer == case.optimizer
    assert subject.losses == case.loss
    assert subject.rates(0, 3).shape == (3,)
