"""`unitrain generate`: one text for one seed on every backend, with the cache and without; mistakes are told."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from unitrain.cli.main import app
from unitrain.spec.errors import InputError

RECIPE = """
name: tiny
model:
  file: {models}/gpt_mini.yaml
  vocabulary: 260
  length: 12
  width: 8
  heads: 2
  depth: 1
  dropout: 0.0
data: {{source: {{type: text, files: t.txt}}, vocabulary: {vocabulary}, split: {{validation: 0.2, test: 0}}}}
loss: cross_entropy
optimizer: {{type: adam, lr: 0.02}}
training: {{epochs: 1, batch_size: 16}}
backend: numpy
"""


@pytest.fixture(scope="module", params=["bytes", "words"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    rng = np.random.default_rng(0)
    words = ["the", "cat", "sät", "on", "mats", "€5"]
    lines = [" ".join(rng.choice(words, 8)) + "." for _ in range(60)]
    (folder / "t.txt").write_text("\n".join(lines), encoding="utf-8")
    models = request.config.rootpath / "models"
    (folder / "r.yaml").write_text(RECIPE.format(models=models, vocabulary=request.param), encoding="utf-8")
    assert called("fit", folder / "r.yaml", "--out", folder / "run", "--quiet").exit_code == 0
    return folder / "run"


def called(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def told(*words) -> str:
    done = called("generate", *words)
    assert done.exit_code != 0
    assert isinstance(done.exception, InputError)
    return str(done.exception.problems[0])


def test_one_seed_gives_one_text_on_every_backend(run):
    options = ("--prompt", "the cat", "--tokens", 30, "--seed", 5, "--temperature", 0.7, "--top-k", 30, "--top-p", 0.95)
    texts = {
        (backend, whole): called(
            "generate", run, *options, "--backend", backend, *(["--whole"] if whole else [])
        ).stdout
        for backend, whole in [("numpy", False), ("numpy", True), ("torch", False), ("keras", False), ("onnx", True)]
    }
    assert len(set(texts.values())) == 1, texts
    assert next(iter(texts.values())).startswith("the cat")
    assert called("generate", run, *options[:4], "--seed", 6).stdout != next(iter(texts.values()))


def test_json_has_tokens_and_each_sample_draws_for_itself(run):
    lines = called("generate", run, "--prompt", "the", "--tokens", 20, "--samples", 2, "--json").stdout.splitlines()
    first, second = map(json.loads, lines)
    assert (first["sample"], second["sample"]) == (0, 1)
    assert len(first["tokens"]) == len(second["tokens"]) == 20
    assert first["tokens"] != second["tokens"]
    # Padding and what stands for unknown are never written.
    assert min(first["tokens"] + second["tokens"]) >= 1
    alone = called("generate", run, "--prompt", "the", "--tokens", 20).stdout
    assert alone == f"the{first['text']}\n"


def test_the_text_ends_before_the_stop(run):
    whole = called("generate", run, "--prompt", "the", "--tokens", 40).stdout[3:-1]
    stop = whole[10:13]
    stopped = called("generate", run, "--prompt", "the", "--tokens", 40, "--stop", stop).stdout[3:-1]
    assert stopped == whole.split(stop)[0]


def test_a_prompt_is_read_from_standard_input(run):
    done = CliRunner().invoke(app, ["generate", str(run), "--prompt", "-", "--tokens", "3"], input="on the")
    assert done.stdout.startswith("on the")


def test_a_long_prompt_and_unknown_words_are_noted(run):
    done = called("generate", run, "--prompt", "the cat on mats " * 20, "--tokens", 2)
    assert "the model sees the last 12 of the prompt's" in done.stderr
    words = json.loads((run / "preprocessing.json").read_text())["inputs"]["tokens"]["features"][0]["encoder"]
    if words["vocabulary"]["type"] == "words":
        assert "1 of the prompt's 2 tokens are not" in called("generate", run, "--prompt", "the axolotl").stderr


def test_mistakes_are_told(run, tmp_path):
    assert "no tokens" in told(run, "--prompt", "")
    assert "out of range" in told(run, "--prompt", "a", "--top-p", 1.5)
    assert "no such run folder" in told(tmp_path / "none", "--prompt", "a")
