"""Initialisers by word and by mapping, in our validation and in the JSON Schema alike."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.initializers import Glorot, He, InitializerWord, Lecun, Orthogonal, TruncatedNormal
from unitrain.spec.layers import Dense
from unitrain.spec.model import InputSpec, ModelSpec
from unitrain.spec.schema import model_schema


def dense(initializer: Any) -> Dense:
    return Dense.model_validate({"units": 3, "kernel_initializer": initializer})


@pytest.mark.parametrize("word", get_args(InitializerWord))
def test_every_word_is_read(word: str) -> None:
    found = dense(word).kernel_initializer
    distribution = getattr(found, "distribution", None)
    assert word in (found.type, f"{found.type}_{distribution}")


def test_words_are_short_for_mappings() -> None:
    assert dense("he_truncated_normal").kernel_initializer == He(distribution="truncated_normal")
    assert dense("lecun_normal").kernel_initializer == Lecun(distribution="normal")
    assert dense("glorot").kernel_initializer == Glorot() == dense({"type": "glorot"}).kernel_initializer
    assert dense("truncated_normal").kernel_initializer == TruncatedNormal()


def test_the_json_schema_offers_the_words_and_the_mappings() -> None:
    schema = model_schema()
    options = schema["$defs"]["Dense"]["properties"]["kernel_initializer"]["anyOf"]
    assert {"enum": list(get_args(InitializerWord))} in options
    named = {reference["$ref"] for option in options for reference in option.get("anyOf", [])}
    assert {"#/$defs/He", "#/$defs/Constant", "#/$defs/Orthogonal"} < named


def test_an_orthogonal_vector_is_refused_before_training() -> None:
    model = ModelSpec(
        inputs={"x": InputSpec(shape=(4,))}, layers=(Dense(name="y", units=3, bias_initializer=Orthogonal()),)
    )
    with pytest.raises(InputError) as caught:
        resolve(model)
    (problem,) = caught.value.problems
    assert problem.field == ("layers", 0)
    assert problem.message == "dense 'y' has a parameter of shape [3], and orthogonal needs two axes or more"


@pytest.mark.parametrize(
    "wrong", [{"type": "uniform", "low": 1.0, "high": 0.0}, {"type": "normal", "stddev": 0}, 3, "x"]
)
def test_what_makes_no_sense_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="kernel_initializer"):
        dense(wrong)
