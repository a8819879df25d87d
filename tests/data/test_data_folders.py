"""Folders of files: deep ones, links into circles and outside, names that few expect, texts too large for memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unitrain.data.files import list_classes, list_files
from unitrain.data.sources import text
from unitrain.data.sources.text import read_text
from unitrain.data.vocabulary import BpeVocabulary
from unitrain.spec.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name in ("b/2.txt", "b/1.TXT", "b/3.png", "b/.4.txt", "a/deep/er/5.txt", ".c/6.txt", "7.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    yield tmp_path
    # pytest's own way of removing a folder calls itself for each folder in it.
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def test_files_are_listed_as_the_library_s_own_walk_lists_them(folder: Path) -> None:
    expected = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() == ".txt" and not path.name.startswith(".")
    )
    assert list_files(folder, (".txt",)) == expected
    assert len(expected) == 5
    names = [(path.name, name) for path, name in list_classes(folder, (".txt",))]
    assert names == [("5.txt", "a"), ("1.TXT", "b"), ("2.txt", "b")]


def test_folders_deeper_than_python_calls_are_read(folder: Path) -> None:
    """More folders in one another than functions may call one another: the library's own walk fails here."""
    here = folder / "a"
    for _ in range(420):
        here = here / "d"
        os.mkdir(here)
    (here / "last.txt").write_text("x")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        found = list_files(folder, (".txt",))
    finally:
        sys.setrecursionlimit(limit)
    assert "last.txt" in [path.name for path in found]


def test_links_are_followed_to_classes_and_files_and_never_in_a_circle(folder: Path, tmp_path_factory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "8.txt").write_text("8")
    (folder / "c").symlink_to(outside)
    (folder / "b" / "9.txt").symlink_to(outside / "8.txt")
    (folder / "b" / "nowhere.txt").symlink_to("nothing")
    (folder / "b" / "itself.txt").symlink_to("itself.txt")
    (folder / "b" / "circle").symlink_to(folder)
    os.mkfifo(folder / "b" / "pipe.txt")
    names = [(path.name, name) for path, name in list_classes(folder, (".txt",))]
    assert names == [("5.txt", "a"), ("1.TXT", "b"), ("2.txt", "b"), ("9.txt", "b"), ("8.txt", "c")]
    for place in ("/", "..", "."):
        (folder / "d").symlink_to(place)
        with pytest.raises(InputError, match="the link leads to a folder that holds it") as caught:
            list_classes(folder, (".txt",))
        assert caught.value.problems[0].file == str(folder / "d")
        (folder / "d").unlink()


def test_a_text_larger_than_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("x" * 101)
    monkeypatch.setattr(text, "available_memory", lambda: 200)
    with pytest.raises(InputError, match="the text is too large for memory"):
        read_text(tmp_path / "a.txt")


def test_pieces_of_words_are_learnt_from_giant_words_in_time() -> None:
    """Time is that of its square to the library: 200,000 letters took two minutes."""
    pytest.importorskip("tokenizers")
    for word in ("ab", "é", "\t"):
        giant = word * (200_000 // len(word))
        vocabulary = BpeVocabulary.learn([f"the dog {giant} the dog"], 300)
        assert vocabulary.decode(vocabulary.encode(giant)) == giant
    # Other texts are learnt from as they stand.
    assert BpeVocabulary.learn(["the dog sees the dogs "], 262) == BpeVocabulary.learn(
        ["the dog sees the dogs", " "], 262
    )
