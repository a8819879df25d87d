"""The pages say what is: their YAML loads, their links lead somewhere, their commands and options exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unitrain.cli.main import Verbs, app
from unitrain.graph.resolve import resolve
from unitrain.spec.base import validate
from unitrain.spec.model import ModelSpec
from unitrain.spec.recipe import Recipe
from unitrain.spec.yaml import parse_yaml
from unitrain.train.recipe import check_recipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list:
    return [
        pytest.param(text, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, (kind, text) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
        if kind == language
    ]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_loads(text):
    if text.startswith("#"):
        return  # the comment that editors read
    document = parse_yaml(text)
    data = document.data
    if "loss" in data:
        recipe = validate(Recipe, document)
        assert check_recipe(recipe, ROOT / "recipes").graph.nodes
    elif "inputs" in data:
        assert resolve(validate(ModelSpec, document)).nodes
    elif data.keys() == {"model"}:
        assert (ROOT / "recipes" / data["model"]["file"]).is_file()
    else:
        # A piece of a model: whole with inputs of its own.
        whole = {"inputs": {"features": {"shape": [8, 8, 16] if "blocks" in data else [8]}}, **data}
        assert resolve(ModelSpec.model_validate(whole)).nodes


def test_the_example_of_a_layer_shows_what_stands():
    page = (ROOT / "docs/adding-a-layer.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```text file=(\S+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(shown) == 5
    for file, text in shown:
        assert text in (ROOT / file).read_text(encoding="utf-8"), file


@pytest.mark.parametrize("text", blocks("python"))
def test_python_runs(text, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(text, "docs", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_rows_of_a_table_have_as_many_cells_as_its_head(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for table in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        # A pipe behind a backslash is text; one within backticks parts cells nevertheless.
        rows = [row.replace("\\|", "").count("|") for row in table.splitlines()]
        assert set(rows) == {rows[0]}, table.splitlines()[0]


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if kind == "":
                found += [line.partition("  #")[0] for line in text.splitlines() if line.startswith("unitrain ")]
    return found


@pytest.mark.parametrize("command", commands())
def test_commands_exist(command):
    _, verb, *words = shlex.split(command)
    assert verb in Verbs.verbs
    printed = CliRunner().invoke(app, [verb, "--help"]).output
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in printed, word
        if word.startswith(("models/", "recipes/")):
            assert list(ROOT.glob(word)), word


def test_the_pages_name_everything_a_recipe_can_say():
    text = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    schema = Recipe.model_json_schema()["$defs"]
    types = [
        definition["properties"]["type"]["const"]
        for definition in schema.values()
        if "const" in definition.get("properties", {}).get("type", {})
    ]
    from unitrain.spec.model import STEP_TYPES

    missing = [
        name for name in types if name not in STEP_TYPES and f"`{name}" not in text and f"type: {name}" not in text
    ]
    # Initialisers and activations are for `unitrain schema model` to list.
    initialisers = {
        "zeros",
        "ones",
        "constant",
        "uniform",
        "normal",
        "truncated_normal",
        "glorot",
        "he",
        "lecun",
        "orthogonal",
    }
    assert not set(missing) - initialisers


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_scripts_and_extras_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for script in re.findall(r"\bscripts/[\w.-]*\w", text):
        assert (ROOT / script).exists(), script
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for named in re.findall(r"(?:\.|unitrain)\[([a-z,]+)\]", text):
        assert set(named.split(",")) <= extras.keys(), named
