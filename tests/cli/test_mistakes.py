"""Every mistake is answered with place, found, allowed and hint; exit code 2; never a traceback."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from unitrain.cli.main import main

Answer = tuple[int, str, str]
Run = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Answer:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(caught.value.code or 0), out, err

    return call


HEAD = "inputs: {x: {shape: [4]}}\n"
IMAGE = "inputs: {x: {shape: [8, 8, 1]}}\n"

# Text of a model, and what the answer must contain: line, field, found, allowed, hint.
MODELS: dict[str, tuple[str, list[str]]] = {
    "unknown layer": (
        HEAD + "layers:\n  - {type: dens, units: 3}\n",
        ["m.yaml:3: layers[0].type: unknown type 'dens'", "found:   dens", "global_max_pool", "did you mean 'dense'?"],
    ),
    "misspelt field of a layer": (
        HEAD + "layers:\n  - type: dense\n    unit: 3\n",
        ["m.yaml:4: layers[0].unit: unknown field 'unit'", "kernel_initializer", "did you mean 'units'?"],
    ),
    "misspelt field of the model": (
        HEAD + "layer: [{type: relu}]\n",
        ["m.yaml:2: layer: unknown field 'layer'", "blocks", "did you mean 'layers'?"],
    ),
    "misspelt value": (
        HEAD + "layers:\n  - {type: dense, units: 3, activation: relo}\n",
        ["m.yaml:3: layers[0].activation", "'relo'", "gelu", "did you mean 'relu'?"],
    ),
    "wrong type": (
        HEAD + "layers:\n  - {type: dense, units: many}\n",
        ["m.yaml:3: layers[0].units", "whole number", "found:   'many'"],
    ),
    "negative size": (
        HEAD + "layers:\n  - {type: dense, units: -3}\n",
        ["m.yaml:3: layers[0].units", "greater than 0", "found:   -3"],
    ),
    "missing field": (HEAD + "layers:\n  - {type: dense}\n", ["m.yaml:3: layers[0].units: this field is required"]),
    "several mistakes at once": (
        HEAD + "layers:\n  - {type: dense}\n  - {type: dense, units: 0}\n",
        ["m.yaml:3: layers[0].units", "m.yaml:4: layers[1].units"],
    ),
    "shape clash": (
        HEAD + "layers:\n  - {type: conv2d, name: first, filters: 3, kernel_size: 3}\n",
        ["m.yaml:3: layers[0]: conv2d 'first'", "3 axes", "(height, width, channel)", "[batch, 4]"],
    ),
    "branches that do not fit": (
        HEAD + "layers:\n  - {type: dense, name: a, units: 3}\n  - {type: add, name: sum, inputs: [a, x]}\n",
        ["m.yaml:4: layers[1]", "'sum'", "a [batch, 3]", "x [batch, 4]"],
    ),
    "window larger than the image": (
        IMAGE + "layers:\n  - {type: conv2d, filters: 3, kernel_size: 9}\n",
        ["m.yaml:3: layers[0]", "[batch, 8, 8, 1]"],
    ),
    "unknown input": (
        HEAD + "layers:\n  - {type: dense, name: hidden, units: 3}\n  - {type: relu, inputs: hiden}\n",
        ["m.yaml:4: layers[1].inputs", "unknown layer or input 'hiden'", "did you mean 'hidden'?"],
    ),
    "cycle": (
        HEAD + "layers:\n  - {type: relu, name: a, inputs: b}\n  - {type: relu, name: b, inputs: a}\n",
        ["m.yaml:", "cycle", "a -> b -> a"],
    ),
    "duplicate name": (
        HEAD + "layers:\n  - {type: relu, name: a}\n  - {type: relu, name: a}\n",
        ["m.yaml:4: layers[1].name", "'a' is taken by layer 1"],
    ),
    "duplicate key": (
        HEAD + "layers:\n  - {type: relu}\nlayers:\n  - {type: relu}\n",
        ["m.yaml:4: layers: the key stands twice", "first on line 2"],
    ),
    "dead layer": (
        HEAD + "layers:\n  - {type: relu, name: lost}\n  - {type: relu, name: kept, inputs: x}\n",
        ["m.yaml:3: layers[0]", "'lost' feeds no output"],
    ),
    "block in itself": (
        HEAD + "blocks: {b: {layers: [{type: block, block: b}]}}\nlayers: [{type: block, block: b}]\n",
        ["m.yaml:2:", "block 'b' uses itself"],
    ),
    "unknown block": (
        HEAD + "blocks: {tower: {layers: [{type: relu}]}}\nlayers: [{type: block, block: towr}]\n",
        ["m.yaml:3: layers[0].block", "did you mean 'tower'?"],
    ),
    "unknown argument": (
        "arguments: {width: 4}\n" + HEAD + "layers:\n  - {type: dense, units: $widht}\n",
        ["m.yaml:4: layers[0].units: unknown argument 'widht'", "did you mean 'width'?"],
    ),
    "code in an argument": (
        HEAD + "layers:\n  - {type: dense, units: '${open(1)}'}\n",
        ["m.yaml:3: layers[0].units", "not an expression"],
    ),
    "empty file": ("", ["m.yaml: the file is empty"]),
    "only a comment": ("# nothing yet\n", ["m.yaml: the file is empty"]),
    "null": ("~\n", ["m.yaml: the file is empty"]),
    "a list": ("- 1\n- 2\n", ["m.yaml:1:", "neither a model nor a recipe", "a model has `inputs` and `layers`"]),
    "a word": ("hello\n", ["m.yaml:1:", "neither a model nor a recipe"]),
    "something else": ("name: x\nversion: 3\n", ["neither a model nor a recipe", "fields name, version"]),
    "tabs": (HEAD + "layers:\n\t- {type: relu}\n", ["m.yaml:3: not valid YAML", "tab"]),
    "unclosed bracket": (HEAD + "layers: [{type: relu}\n", ["m.yaml:", "not valid YAML"]),
    "a tag": (HEAD + "layers: !!python/object/apply:os.system [ls]\n", ["m.yaml:2: layers: YAML tags are not read"]),
    "anchor bomb": (
        "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)),
        ["m.yaml:", "too many values", "allowed:"],
    ),
    "anchor inside itself": ("layers: &a [*a]\n", ["m.yaml:1:", "nested too deeply"]),
    "deep nesting": ("layers: " + "[" * 3000 + "]" * 3000 + "\n", ["m.yaml", "nested too deeply"]),
    "long number": (HEAD + f"layers:\n  - {{type: dense, units: {'9' * 5000}}}\n", ["m.yaml:3: layers[0].units"]),
    "huge size": (HEAD + f"layers:\n  - {{type: dense, units: {10**30}}}\n", ["m.yaml:3: layers[0]", "too large"]),
}


@pytest.mark.parametrize(("text", "parts"), MODELS.values(), ids=MODELS.keys())
def test_wrong_model(run: Run, text: str, parts: list[str]) -> None:
    Path("m.yaml").write_text(text)
    code, out, err = run("check", "m.yaml")
    assert (code, out) == (2, "")
    for part in parts:
        assert part in err


@pytest.mark.parametrize("verb", ["check", "summary", "fit"])
def test_files_that_cannot_be_read(run: Run, verb: str) -> None:
    Path("model.yaml").write_text(HEAD)
    Path("folder").mkdir()
    Path("binary.yaml").write_bytes(bytes(range(256)) * 20)
    Path("utf16.yaml").write_bytes("layers: []".encode("utf-16"))
    Path("control.yaml").write_text("name: a\x07b\n")
    with Path("large.yaml").open("wb") as handle:
        handle.truncate(100 * 1024 * 1024)  # sparse: takes no room on the disk
    expected = {
        "modle.yaml": ["modle.yaml: no such file", "did you mean 'model.yaml'?"],
        "nowhere/model.yaml": ["no such file", "the folder 'nowhere' does not exist"],
        "folder": ["folder: not a file"],
        "binary.yaml": ["binary.yaml: the file is not UTF-8 text"],
        "utf16.yaml": ["utf16.yaml: the file is not UTF-8 text"],
        "control.yaml": ["control.yaml", "not valid YAML"],
        "large.yaml": ["large.yaml: the file is too large", "104,857,600 bytes", "4,194,304 bytes"],
    }
    for file, parts in expected.items():
        code, out, err = run(verb, file)
        assert (code, out) == (2, ""), file
        for part in parts:
            assert part in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file, whatever its mode")
def test_file_without_permission(run: Run) -> None:
    Path("secret.yaml").write_text(HEAD)
    Path("secret.yaml").chmod(0)
    code, _, err = run("check", "secret.yaml")
    Path("secret.yaml").chmod(stat.S_IRWXU)
    assert code == 2
    assert "secret.yaml: the file cannot be read: Permission denied" in err


def test_file_that_fails_while_it_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an unreadable file does for everybody but root."""

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    Path("secret.yaml").write_text(HEAD)
    monkeypatch.setattr(Path, "read_text", refuse)
    code, _, err = run("check", "secret.yaml")
    assert code == 2
    assert "secret.yaml: the file cannot be read: Permission denied" in err


def test_pipe_in_place_of_a_file(run: Run) -> None:
    os.mkfifo("pipe.yaml")
    code, _, err = run("check", "pipe.yaml")
    assert code == 2
    assert "pipe.yaml: not a file" in err


RECIPE = "model: model.yaml\ndata: {source: digits}\nloss: cross_entropy\noptimizer: adam\n"
RECIPES: dict[str, tuple[str, list[str]]] = {
    "unknown optimizer": (
        RECIPE.replace("adam", "adamm"),
        ["r.yaml:4: optimizer", "unknown type 'adamm'", "did you mean 'adam'?"],
    ),
    "misspelt field": (RECIPE + "trainin: {epochs: 3}\n", ["r.yaml:5: trainin", "did you mean 'training'?"]),
    "no data": (RECIPE.replace("data: {source: digits}\n", ""), ["r.yaml", "data: this field is required"]),
    "missing model": (RECIPE.replace("model.yaml", "modle.yaml"), ["r.yaml:1:", "no such file", "'model.yaml'"]),
    "argument the model lacks": (
        RECIPE.replace("model.yaml", "{file: model.yaml, clases: 3}"),
        ["r.yaml:1: model.clases", "did you mean 'classes'?"],
    ),
    "loss of an unknown output": (
        RECIPE.replace("cross_entropy", "{logit: {loss: mse}}"),
        ["r.yaml:3: loss.logit", "did you mean 'logits'?"],
    ),
    "monitor of nothing": (
        RECIPE + "training: {keep_best: acuracy}\nmetrics: [accuracy]\n",
        ["r.yaml:5: training.keep_best", "did you mean 'accuracy'?"],
    ),
    "wrong number": (RECIPE + "training: {epochs: -1}\n", ["r.yaml:5: training.epochs", "greater than 0"]),
}


@pytest.mark.parametrize(("text", "parts"), RECIPES.values(), ids=RECIPES.keys())
def test_wrong_recipe(run: Run, text: str, parts: list[str]) -> None:
    Path("model.yaml").write_text(
        "arguments: {classes: 10}\ninputs: {x: {shape: [8, 8, 1]}}\n"
        "layers: [{type: flatten}, {type: dense, name: logits, units: $classes}]\n"
    )
    Path("r.yaml").write_text(RECIPE)
    assert run("check", "r.yaml")[0] == 0
    Path("r.yaml").write_text(text)
    code, out, err = run("check", "r.yaml")
    assert (code, out) == (2, "")
    for part in parts:
        assert part in err


def test_mistake_in_the_model_of_a_recipe_names_the_model_file(run: Run) -> None:
    Path("model.yaml").write_text(HEAD + "layers:\n  - {type: dens, units: 3}\n")
    Path("r.yaml").write_text(RECIPE)
    _, _, err = run("check", "r.yaml")
    assert "model.yaml:3: layers[0].type: unknown type 'dens'" in err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["chek"], ["unknown command 'chek'", "did you mean 'check'?"]),
        (["check", "--jsn", "m.yaml"], ["--jsn", "--json"]),
        (["check"], ["files"]),
        (["--versio"], ["--versio", "--version"]),
        (["summary", "m.yaml", "--batch", "0"], ["--batch"]),
        (["summary", "m.yaml", "--batch", "two"], ["--batch"]),
        (["summary", "m.yaml", "--depth", "-1"], ["--depth"]),
        (["summary", "m.yaml", "--set", "units"], ["an argument is given as name=value"]),
        (["summary", "m.yaml", "--set", "untis=3"], ["unknown model argument 'untis'", "did you mean 'units'?"]),
        (["summary", "m.yaml", "--set", "units=-3"], ["layers[0].units", "greater than 0", "-3"]),
        (["schema", "modle"], ["modle", "model"]),
        (["fit"], ["unitrain fit RECIPE"]),
    ],
    ids=lambda value: " ".join(value) if value and not value[0].startswith("unknown") else "",
)
def test_wrong_command_line(run: Run, arguments: list[str], parts: list[str]) -> None:
    Path("m.yaml").write_text("arguments: {units: 3}\n" + HEAD + "layers: [{type: dense, units: $units}]\n")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    for part in parts:
        assert part in err


def test_place_that_cannot_be_written(run: Run) -> None:
    code, _, err = run("schema", "model", "--out", "nowhere/model.json")
    assert code == 2
    assert err == "nowhere/model.json: No such file or directory\n"
