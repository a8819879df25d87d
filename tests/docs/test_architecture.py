"""The page on the house names every folder, every floor in its order, and no file that is not there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_folder_is_named():
    folders = {path.parent for path in (ROOT / "unitrain").rglob("*.py")} | {
        path
        for path in ROOT.iterdir()
        if path.is_dir() and path.name in ("models", "recipes", "scripts", "tests", "docs")
    }
    assert len(folders) > 20
    missing = [str(folder.relative_to(ROOT)) for folder in folders if f"{folder.name}/" not in PAGE]
    assert missing == []


def test_every_floor_is_named_in_its_order():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (floors,) = (one["layers"] for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    names = [name.strip().removeprefix("unitrain.") for floor in reversed(floors) for name in floor.split("|")]
    sentence = PAGE[PAGE.index("Each floor imports only those below it:") :].partition("`data`")[0]
    assert re.findall("|".join(names), sentence) == names


def test_every_file_that_is_named_is_there():
    files = [path.relative_to(ROOT).as_posix() for top in ("unitrain", "tests") for path in (ROOT / top).rglob("*.py")]
    named = set(re.findall(r"`([\w/]+\.py)`", PAGE))
    assert len(named) > 20
    assert [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)] == []
