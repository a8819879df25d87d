"""Metrics of text: bits of what tokens stand for, padding that counts nothing, and sums taken piece by piece."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn import metrics as sklearn

from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.backends.torch.namespace import TorchNamespace
from unitrain.data.vocabulary import BpeVocabulary, ByteVocabulary, CharacterVocabulary, Vocabulary, WordVocabulary
from unitrain.spec import metrics as specs
from unitrain.spec.errors import InputError
from unitrain.spec.losses import CrossEntropy
from unitrain.train import evaluation
from unitrain.train.evaluation import Evaluator
from unitrain.train.losses import make_loss
from unitrain.train.metrics import Units, make_metric

TEXT = "naïve café, 2 €; " * 6
VOCABULARIES: list[Vocabulary] = [
    ByteVocabulary(),
    CharacterVocabulary.learn([TEXT]),
    BpeVocabulary.learn([TEXT], 270),
]
IDS = ["bytes", "characters", "bpe"]
PER: list[tuple[specs.Metric, int]] = [
    (specs.BitsPerByte(), len(TEXT.encode())),
    (specs.BitsPerCharacter(), len(TEXT)),
]


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=IDS)
@pytest.mark.parametrize(("spec", "units"), PER, ids=["byte", "character"])
def test_bits_are_the_text_s_whatever_its_tokens(spec: specs.Metric, units: int, vocabulary: Vocabulary) -> None:
    tokens = np.array([vocabulary.encode(TEXT)], dtype=np.int32)
    logits = np.random.default_rng(0).normal(size=(*tokens.shape, vocabulary.size))
    logs = np.take_along_axis(log_softmax(logits, axis=-1), tokens[..., None], axis=-1)
    metric = make_metric(spec, units=Units(vocabulary=vocabulary))
    assert metric.evaluate(logits, tokens, None) == pytest.approx(-logs.sum() / math.log(2.0) / units, rel=1e-12)
    # A model that knows nothing needs log2 of the vocabulary for each token.
    nothing = metric.evaluate(np.zeros_like(logits), tokens, None)
    assert nothing == pytest.approx(math.log2(vocabulary.size) * tokens.size / units, rel=1e-12)


def test_ignored_tokens_have_neither_bits_nor_bytes() -> None:
    metric = make_metric(specs.BitsPerByte(), ignore_index=-1, units=Units(vocabulary=VOCABULARIES[1]))
    rng = np.random.default_rng(1)
    logits, tokens = rng.normal(size=(3, 5, VOCABULARIES[1].size)), rng.integers(2, 9, (3, 5)).astype(np.int32)
    weight = np.array([1.0, 0.0, 1.0])
    kept = metric.evaluate(logits[[0, 2]], tokens[[0, 2]], None)
    assert metric.evaluate(logits, tokens, weight) == pytest.approx(kept, rel=1e-12)
    hidden = tokens.copy()
    hidden[1] = -1
    assert metric.evaluate(logits, hidden, None) == pytest.approx(kept, rel=1e-12)
    terms = metric.terms(TorchNamespace(), torch.tensor(logits), torch.tensor(hidden), None)
    assert float(terms[0] / terms[1]) == pytest.approx(kept, rel=1e-12)


@pytest.mark.parametrize("vocabulary", [None, WordVocabulary.learn([TEXT])], ids=["none", "words"])
def test_bits_of_what_is_no_running_text(vocabulary: Vocabulary | None) -> None:
    with pytest.raises(InputError, match="running text"):
        make_metric(specs.BitsPerByte(), units=Units(vocabulary=vocabulary))


def tagged() -> tuple[Any, Any]:
    rng = np.random.default_rng(2)
    target = rng.integers(0, 4, (40, 6)).astype(np.int32)
    target[np.arange(6) >= rng.integers(1, 7, 40)[:, None]] = -1
    return rng.normal(size=(40, 6, 4)).round(1), target


def test_padding_counts_nothing() -> None:
    logits, target = tagged()
    kept = target >= 0
    chosen, true = logits.argmax(axis=-1)[kept], target[kept]
    for spec, expected in [
        (specs.Accuracy(), sklearn.accuracy_score(true, chosen)),
        (specs.F1(average="macro"), sklearn.f1_score(true, chosen, average="macro")),
        (specs.F1(average="micro"), sklearn.f1_score(true, chosen, average="micro")),
        (specs.F1(average="per_class"), sklearn.f1_score(true, chosen, average=None)),
        (specs.Precision(average="per_class"), sklearn.precision_score(true, chosen, average=None)),
        (specs.Perplexity(), math.exp(sklearn.log_loss(true, np.exp(log_softmax(logits, axis=-1))[kept]))),
    ]:
        assert make_metric(spec, ignore_index=-1).evaluate(logits, target, None) == pytest.approx(expected, rel=1e-12)


class _Graph:
    outputs = {"y": "y"}

    def shape(self, node: str) -> tuple[int, ...]:
        return (6, 4)


class _Answers:
    """A program whose predictions are its inputs."""

    graph = _Graph()

    def __init__(self) -> None:
        self.asked: list[int] = []

    def predict(self, inputs: Any, batch_size: int) -> dict[str, Any]:
        self.asked.append(len(inputs["x"]))
        return {"y": inputs["x"]}


def test_pieces_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = tagged()
    named: list[specs.Metric] = [
        specs.Accuracy(),
        specs.Perplexity(),
        specs.F1(average="per_class"),
        specs.Auc(),
        specs.BalancedAccuracy(),
    ]
    measured = [(spec.type, "y", make_metric(spec, ignore_index=-1)) for spec in named]
    losses = {"y": (0.5, make_loss(CrossEntropy(ignore_index=-1)))}
    evaluator = Evaluator(NumpyNamespace(), losses, measured, batch_size=8)
    data: Any = evaluation.Batchable({"x": logits}, {"y": target}, np.linspace(0.5, 2.0, 40))
    program: Any = _Answers()
    whole = evaluator.evaluate(program, data)
    assert program.asked == [40]
    monkeypatch.setattr(evaluation, "_PREDICTED_BYTES", 16 * 6 * 4 * 8)
    pieces = evaluator.evaluate(program, data)
    assert program.asked[1:] == [16, 16, 8]
    assert pieces == evaluator.measure({"y": logits}, data) | {
        label: pytest.approx(value, rel=1e-13) for label, value in whole.items()
    }
