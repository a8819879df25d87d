"""Runs on text from the recipe to predictions: a tagger and a language model, the same on every backend."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn

from unitrain.spec.errors import InputError
from unitrain.train.fit import fit
from unitrain.train.inference import TrainedRun, write_predictions
from unitrain.train.recipe import load_recipe

MODELS = Path(__file__).parents[2] / "models"
TAGGER = f"""
name: tagger
model: {{file: {MODELS}/lstm_tagger.yaml, vocabulary: 40, length: 6, width: 8, units: 8, tags: 3, dropout: 0}}
data:
  source: {{type: conll, file: train.conll, validation_file: valid.conll, token: 1}}
  split: {{test: 0}}
loss: {{type: cross_entropy, ignore_index: -1}}
optimizer: {{type: adam, lr: 0.03}}
metrics: [accuracy, {{type: f1, average: per_class}}, {{type: f1, average: macro}}]
training: {{epochs: 3, batch_size: 8, keep_best: null}}
"""
WRITER = f"""
name: writer
model: {{file: {MODELS}/gpt_mini.yaml, vocabulary: 257, length: 8, width: 8, heads: 2, depth: 1, dropout: 0}}
data:
  source: {{type: text, files: "*.txt"}}
  vocabulary: bytes
  split: {{validation: 0.2, test: 0.2}}
loss: cross_entropy
optimizer: {{type: adam, lr: 0.01}}
metrics: [bits_per_byte, bits_per_character, perplexity]
training: {{epochs: 1, batch_size: 8}}
"""
# The tag of a word hangs on the word before it.
NOUNS, VERBS = ["dog", "cat", "run"], ["sees", "hears", "run"]


def sentences(count: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        for position in range(int(rng.integers(1, 4))):
            lines += [f"{2 * position} the DET", f"{2 * position + 1} {rng.choice(NOUNS)} NOUN"]
            if rng.random() < 0.5:
                lines.append(f"9 {rng.choice(VERBS)} VERB")
        lines.append("")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("text")
    (place / "train.conll").write_text(sentences(60, 0))
    (place / "valid.conll").write_text(sentences(30, 1))
    (place / "a.txt").write_text("the café at the end of the town, " * 20, encoding="utf-8")
    (place / "tagger.yaml").write_text(TAGGER)
    (place / "writer.yaml").write_text(WRITER)
    return place


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Path]:
    recipe, backends = folder / "tagger.yaml", ("numpy", "torch", "keras")
    return {backend: fit(recipe, backend=backend, out=folder / backend).folder.path for backend in backends}


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text())["validation"]
    return found


def test_a_tagger_is_the_same_on_every_backend(runs: dict[str, Path]) -> None:
    first = result(runs["numpy"])
    assert first["accuracy"] > 0.9
    for run in runs.values():
        assert result(run)["loss"] == pytest.approx(first["loss"], rel=1e-3)
        assert result(run)["f1_per_class"] == pytest.approx(first["f1_per_class"], abs=0.02)


def test_tags_are_predicted_by_name_and_padding_counts_nothing(runs: dict[str, Path], folder: Path) -> None:
    trained = TrainedRun.open(runs["torch"], backend="numpy")
    predictions = trained.predict(folder / "valid.conll")
    write_predictions(folder / "tags.csv", predictions.columns, replace=True)
    with (folder / "tags.csv").open(newline="") as lines:
        found = [row["prediction"].split() for row in csv.DictReader(lines)]
    blocks = [block for block in (folder / "valid.conll").read_text().split("\n\n") if block]
    true = [[line.split()[2] for line in block.splitlines()][:6] for block in blocks]
    assert [len(tags) for tags in found] == [len(tags) for tags in true]
    flat_true, flat_found = ([tag for tags in texts for tag in tags] for texts in (true, found))
    expected = sklearn.f1_score(flat_true, flat_found, average=None, labels=["DET", "NOUN", "VERB"])
    assert result(runs["torch"])["f1_per_class"] == pytest.approx(expected.tolist(), rel=1e-6)
    assert result(runs["torch"])["accuracy"] == pytest.approx(sklearn.accuracy_score(flat_true, flat_found), rel=1e-6)
    samples, values = trained.evaluate(data=folder / "valid.conll")
    assert samples == 30
    assert values["accuracy"] == pytest.approx(result(runs["torch"])["accuracy"], rel=1e-6)
    # Words alone, without tags, are predicted too.
    (folder / "bare.conll").write_text("the\ndog\n\nthe\n")
    bare = trained.predict(folder / "bare.conll").columns["prediction"]
    assert [tags.split() for tags in bare] == [["DET", "NOUN"], ["DET"]]


def test_a_recipe_that_would_count_padding_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="ignore_index: -1") as error:
        fit(folder / "tagger.yaml", out=folder / "never", overrides=["loss=cross_entropy"])
    assert error.value.problems[0].field == ("loss",)


def test_a_language_model_says_bits(folder: Path) -> None:
    run = fit(folder / "writer.yaml", backend="torch", out=folder / "writer").folder.path
    found = result(run)
    # All bytes of the held-out windows; é has two.
    assert found["bits_per_byte"] == pytest.approx(math.log2(found["perplexity"]), rel=1e-9)
    assert 1.0 < found["bits_per_character"] / found["bits_per_byte"] < 1.1
    trained = TrainedRun.open(run, backend="numpy")
    assert trained.preprocessing.text_encoder().vocabulary.size == 257
    assert trained.evaluate("validation")[1]["bits_per_byte"] == pytest.approx(found["bits_per_byte"], rel=1e-5)
    (folder / "later.md").write_text("the café at the end of the town, " * 3, encoding="utf-8")
    samples, values = trained.evaluate(data=folder / "later.md")
    assert samples == (3 * 34 - 1) // 8
    assert values["bits_per_byte"] == pytest.approx(found["bits_per_byte"], rel=0.2)


def test_bits_of_a_tagger_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="running text") as error:
        fit(folder / "tagger.yaml", out=folder / "never", overrides=["metrics=[bits_per_byte]"])
    assert error.value.problems[0].line is not None or error.value.problems[0].field == ("metrics", 0)


def test_a_model_that_is_too_narrow_for_the_vocabulary(folder: Path) -> None:
    loaded = load_recipe(folder / "writer.yaml", ["model.vocabulary=100"])
    with pytest.raises(InputError) as error:
        fit(folder / "writer.yaml", out=folder / "never", overrides=["model.vocabulary=100"])
    assert loaded.graph.inputs
    assert "257" in str(error.value)
