"""Generation: draws against their closed forms, and one token at a time against the whole sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitrain.backends import load_backend
from unitrain.backends.contract import Settings
from unitrain.graph.passes.decode import decode_step
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.spec.yaml import read_yaml
from unitrain.train.generation import CachedReader, Sampling, WholeReader, generate
from unitrain.verify.verdict import judge
from unitrain.weights.initialize import initialize

MODELS = Path(__file__).parents[2] / "models"
SIZES = {"vocabulary": 11, "length": 6, "width": 16, "heads": 4, "depth": 2}
BACKENDS = ("numpy", "keras", "torch", "onnx")


def _attention_model(**attention):
    return {
        "inputs": {"tokens": {"shape": [6], "dtype": "integer", "low": 0, "high": 10}},
        "layers": [
            {"type": "embedding", "name": "table", "vocabulary": 11, "width": 8},
            {"type": "sinusoidal_position", "name": "wave"},
            {"type": "attention", "name": "look", "heads": 4, "causal": True, **attention},
            {"type": "add", "name": "sum", "inputs": ["look", "wave"]},
            {"type": "dense", "name": "logits", "units": 11, "activation": "tanh"},
        ],
    }


def _graphs():
    for name in ("gpt_mini", "llama_mini"):
        spec = ModelSpec.model_validate(read_yaml(MODELS / f"{name}.yaml").data)
        yield name, resolve(spec, SIZES)
    for label, options in {
        "alibi": {"position": "alibi", "key_value_heads": 2},
        "interleaved": {"position": "rotary", "rotary_layout": "interleaved", "head_width": 4, "use_bias": False},
        "one group": {"key_value_heads": 1, "width": 8, "head_width": 3},
    }.items():
        yield label, resolve(ModelSpec.model_validate(_attention_model(**options)))


GRAPHS = dict(_graphs())


def _weights(graph):
    rng = np.random.default_rng(3)
    return {
        name: array + 0.3 * rng.standard_normal(array.shape).astype(np.float32)
        for name, array in initialize(graph, 0).items()
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("label", GRAPHS)
def test_one_token_at_a_time_gives_the_logits_of_the_whole_sequence(label, backend):
    graph = GRAPHS[label]
    weights = _weights(graph)
    decoding = decode_step(graph)
    assert decoding is not None
    program = load_backend(backend).compile(decoding.graph, decoding.weights(weights), Settings())
    reader = CachedReader(decoding, program)
    tokens = np.random.default_rng(4).integers(0, 11, (3, 6)).astype(np.int32)
    found = np.stack([reader.read(tokens[:, place : place + 1]) for place in range(6)], axis=1)
    numpy = load_backend("numpy")
    right, yardstick = (
        numpy.compile(graph, weights, Settings(precision=precision)).predict({"tokens": tokens})["logits"]
        for precision in ("float64", "float32")
    )
    verdict = judge(found.astype(np.float32), right, yardstick)
    assert verdict.passed, verdict


@pytest.mark.parametrize("label", GRAPHS)
def test_both_readers_write_the_same_text_beyond_the_model_s_length(label):
    graph = GRAPHS[label]
    weights = _weights(graph)
    decoding = decode_step(graph)
    whole = WholeReader(load_backend("numpy").compile(graph, weights, Settings()))
    whole.check_causal()
    program = load_backend("torch").compile(decoding.graph, decoding.weights(weights), Settings())
    texts = [
        np.stack(list(generate(reader, [1, 2, 3], 20, Sampling(temperature=0.8, seed=7), samples=2)))
        for reader in (whole, CachedReader(decoding, program))
    ]
    assert texts[0].shape == (20, 2)
    np.testing.assert_array_equal(texts[0], texts[1])
    assert (texts[0][:, 0] != texts[0][:, 1]).any()


def test_a_model_that_looks_ahead_is_refused():
    graph = resolve(ModelSpec.model_validate(_attention_model(causal=False)))
    assert decode_step(graph) is None
    reader = WholeReader(load_backend("numpy").compile(graph, _weights(graph), Settings()))
    with pytest.raises(InputError, match="depends on later ones"):
        reader.check_causal()


def test_a_causal_model_without_attention_goes_by_the_whole_sequence():
    layers = [
        {"type": "embedding", "vocabulary": 5, "width": 4},
        {"type": "lstm", "units": 4},
        {"type": "dense", "name": "logits", "units": 5},
    ]
    spec = {"inputs": {"tokens": {"shape": [4], "dtype": "integer", "low": 0, "high": 4}}, "layers": layers}
    graph = resolve(ModelSpec.model_validate(spec))
    assert decode_step(graph) is None
    reader = WholeReader(load_backend("numpy").compile(graph, _weights(graph), Settings()))
    reader.check_causal()
    assert len(list(generate(reader, [1], 9, Sampling()))) == 9


def test_a_model_of_something_else_is_refused():
    spec = {"inputs": {"x": {"shape": [4]}}, "layers": [{"type": "dense", "name": "y", "units": 2}]}
    graph = resolve(ModelSpec.model_validate(spec))
    with pytest.raises(InputError, match="no language model"):
        WholeReader(load_backend("numpy").compile(graph, _weights(graph), Settings()))


LOGITS = np.log(np.array([[0.5, 0.1, 0.25, 0.15]]))


@pytest.mark.parametrize(
    ("sampling", "right"),
    [
        (Sampling(), [0.5, 0.1, 0.25, 0.15]),
        (Sampling(temperature=0.0), [1, 0, 0, 0]),
        (Sampling(temperature=0.5), np.array([0.25, 0.01, 0.0625, 0.0225]) / 0.345),
        (Sampling(top_k=2), [2 / 3, 0, 1 / 3, 0]),
        (Sampling(top_p=0.6), [2 / 3, 0, 1 / 3, 0]),
        (Sampling(top_p=0.5), [1, 0, 0, 0]),
        (Sampling(top_p=0.76), [0.5 / 0.9, 0, 0.25 / 0.9, 0.15 / 0.9]),
        (Sampling(top_k=3, top_p=0.9), [0.5 / 0.9, 0, 0.25 / 0.9, 0.15 / 0.9]),
    ],
)
def test_probabilities_are_those_of_the_papers(sampling, right):
    np.testing.assert_allclose(sampling.probabilities(LOGITS)[0], right, atol=1e-12)


def test_of_equals_the_first_is_taken():
    assert Sampling(temperature=0.0).draw(np.array([[1.0, 3.0, 3.0]]), 0) == [1]
    assert list(Sampling(top_k=1).probabilities(np.array([[1.0, 3.0, 3.0]]))[0]) == [0, 1, 0]


def test_draws_have_the_probabilities():
    count = 4000
    drawn = Sampling(seed=5).draw(np.repeat(LOGITS, count, axis=0), 0)
    found = np.bincount(drawn, minlength=4) / count
    # Five standard deviations of a binomial share.
    assert np.abs(found - np.exp(LOGITS[0])).max() < 5 * 0.5 / np.sqrt(count)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-30, 30), min_size=1, max_size=9),
    st.floats(0, 5),
    st.one_of(st.none(), st.integers(1, 12)),
    st.one_of(st.none(), st.floats(1e-6, 1.0)),
)
def test_probabilities_add_up_and_keep_the_likeliest(logits, temperature, top_k, top_p):
    sampling = Sampling(temperature, top_k, top_p)
    found = sampling.probabilities(np.array([logits]))[0]
    assert found.sum() == pytest.approx(1.0)
    assert found[int(np.argmax(logits))] == found.max() > 0
    assert (found > 0).sum() <= (top_k or len(logits))


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"temperature": np.nan}, {"top_k": 0}, {"top_p": 0.0}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="out of range"):
        Sampling(**options)


def test_barred_tokens_are_not_drawn():
    graph = GRAPHS["gpt_mini"]
    reader = WholeReader(load_backend("numpy").compile(graph, _weights(graph), Settings()))
    tokens = np.array(list(generate(reader, [1], 30, Sampling(temperature=5.0), allowed=lambda token: token > 6)))
    assert tokens.min() > 6
