"""The recipes that ship: each loads, and the first one keeps its promise on every backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from unitrain.train.fit import fit
from unitrain.train.recipe import load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_fits_its_model(path):
    loaded = load_recipe(path)
    assert loaded.recipe.name == path.stem
    assert loaded.losses


def test_digits_ends_the_same_on_three_backends(tmp_path):
    """Validation losses within 1e-3 of each other, dropout in the model, and 98 % or more."""
    path = next(path for path in RECIPES if path.stem == "digits-cnn")
    recipe = load_recipe(path)
    assert recipe.recipe.deterministic
    assert any(node.layer.type == "dropout" for node in recipe.graph.nodes)
    losses = {}
    for backend in ("numpy", "torch", "keras"):
        folder = fit(path, backend=backend, out=tmp_path / backend).folder
        last = folder.history()[-1]["validation"]
        assert last["accuracy"] >= 0.98, backend
        losses[backend] = last["loss"]
    assert max(losses.values()) - min(losses.values()) <= 1e-3, losses
