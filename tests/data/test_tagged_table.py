"""Tokens and tags in tables: every form gives the same sentences as CoNLL's; mistakes with their line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_workshop import Input, Workshop

from unitrain.data.load import apply_stored
from unitrain.data.prepared import Prepared
from unitrain.data.preprocess import Preprocessing
from unitrain.data.sources.tagged import conll_raw
from unitrain.data.sources.tagged_table import tagged_table_raw
from unitrain.spec.data import DataSpec
from unitrain.spec.errors import InputError
from unitrain.spec.sources.tagged import Conll, TaggedTable

# Words that are no missing values, a comma and a quotation mark.
SENTENCES = [
    [("NA", "ORG"), ("said", "O"), (",", "O"), ('"', "O"), ("null", "O")],
    [("Bonn", "LOC")],
    [("None", "PER"), ("slept", "O"), ("nan", "O")],
]
BY_WORD = {"type": "tagged_table", "file": "t.csv", "tokens": "word", "tags": "tag"}


def write_rows(path: Path, header: list[str], rows: list[list[str]], blank: str = "") -> Path:
    """Write a table; a row of nothing is a blank line, or ``blank``."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        for row in [header, *rows]:
            if row:
                writer.writerow(row)
            else:
                file.write(blank + "\n")
    return path


def raw_of(path: Path, **more: Any) -> Any:
    source = TaggedTable.model_validate({**BY_WORD, "file": str(path), **more})
    return tagged_table_raw(source, path, source.group)


def pairs(raw: Any) -> list[list[tuple[str, str]]]:
    return [list(zip(*each, strict=True)) for each in zip(raw.features["tokens"], raw.targets["tags"], strict=True)]


@pytest.mark.parametrize("form", ["id", "first", "blank", "commas", "sentences", "tsv", "parquet", "lists", "two"])
def test_each_form_holds_the_same_sentences(tmp_path: Path, form: str) -> None:
    ids = [[f"s{number}", *pair] for number, sentence in enumerate(SENTENCES) for pair in sentence]
    more: dict[str, Any] = {"sentence": "id"}
    header = ["id", "word", "tag"]
    path = tmp_path / "t.csv"
    if form in ("id", "tsv"):
        path = write_rows(path.with_suffix(".tsv" if form == "tsv" else ".csv"), header, ids)
    elif form == "first":  # the number stands in the first row of a sentence alone
        seen = [row[0] for row in ids]
        first = [[row[0] if row[0] not in seen[:at] else "", *row[1:]] for at, row in enumerate(ids)]
        path = write_rows(path, header, first)
    elif form == "two":  # sentences are numbered anew in each document
        again = [["a" if row[0] == "s0" else "b", "1" if row[0] != "s2" else "2", *row[1:]] for row in ids]
        path, more = write_rows(path, ["document", *header], again), {"sentence": ["document", "id"]}
    elif form in ("blank", "commas"):
        rows = [row for sentence in SENTENCES for row in [*map(list, sentence), []]]
        path, more = write_rows(path, header[1:], rows, "" if form == "blank" else ","), {}
    else:
        more = {"rows": "sentences"}
        words, tags = ([[pair[side] for pair in sentence] for sentence in SENTENCES] for side in (0, 1))
        if form == "sentences":
            joined = [[" ".join(w), " ".join(t)] for w, t in zip(words, tags, strict=True)]
            path = write_rows(path, header[1:], joined)
        else:
            import pyarrow as pa
            from pyarrow import parquet

            path = tmp_path / "t.parquet"
            columns = {"word": words, "tag": tags}
            if form == "parquet":
                columns = {name: [" ".join(each) for each in values] for name, values in columns.items()}
            parquet.write_table(pa.table(columns), path)
    conll = tmp_path / "t.conll"
    conll.write_text("\n\n".join("\n".join(" ".join(pair) for pair in sentence) for sentence in SENTENCES))
    expected = pairs(conll_raw(Conll(file="t.conll"), conll))
    found = raw_of(path, **more)
    assert pairs(found) == expected == SENTENCES
    line = {"id": 7, "first": 7, "tsv": 7, "two": 7, "blank": 8, "commas": 8, "sentences": 3}.get(form)
    assert found.error(1, "x").problems[0].line == line


def prepared(workshop: Workshop, **more: Any) -> Prepared:
    rng = np.random.default_rng(0)
    rows = [
        [f"d{sentence // 4}", str(sentence), word, {"the": "DET"}.get(word, "NOUN")]
        for sentence in range(40)
        for word in rng.choice(["the", "dog", "cat"], 3)
    ]
    write_rows(workshop.folder / "t.csv", ["document", "id", "word", "tag"], rows)
    source = {**BY_WORD, "sentence": "id", **more.pop("source", {})}
    spec = {"source": source, "split": {"validation": 0.2, "test": 0.2}, **more}
    return workshop.prepare(spec, {"tokens": Input((4,), "integer")})


@pytest.mark.parametrize("where", ["source", "split"])
def test_a_document_stays_in_one_part(workshop: Workshop, where: str) -> None:
    split = {"validation": 0.2, "test": 0.2}
    changes = {"split": {**split, "group": "document"}} if where == "split" else {"source": {"group": "document"}}
    found = prepared(workshop, **changes)
    # Of a sentence the row in the file is kept: three rows each, twelve a document.
    documents = [set((part.rows // 12).tolist()) for part in (found.train, found.validation, found.test)]
    assert sorted(document for part in documents for document in part) == list(range(10))
    assert [len(part) for part in documents] == [6, 2, 2]


def test_a_later_file_needs_no_tags(workshop: Workshop) -> None:
    made = prepared(workshop, source={"group": "document"})
    stored = Preprocessing.from_plain(made.preprocessing.to_plain())
    workshop.write("bare.csv", "id,word\n1,the\n1,dog\n")
    bare = apply_stored(stored, "bare.csv", workshop.folder).data
    assert (len(bare), dict(bare.targets)) == (1, {})
    whole = apply_stored(stored, "t.csv", workshop.folder, targets="needed").data
    order = np.searchsorted(whole.rows, made.train.rows)
    np.testing.assert_array_equal(whole.inputs["tokens"][order], made.train.inputs["tokens"])
    np.testing.assert_array_equal(whole.targets["y"][order], made.train.targets["y"])
    with pytest.raises(InputError, match="the data has no target 'tags'"):
        apply_stored(stored, "bare.csv", workshop.folder, targets="needed")
    workshop.write("bare.conll", "the\ndog\n\nthe\n")
    assert len(apply_stored(stored, "bare.conll", workshop.folder).data) == 2


@pytest.mark.parametrize(
    ("text", "more", "line", "said"),
    [
        ("id,word,tag\n1,a,X\n2,b,Y\n1,c,X\n", {"sentence": "id"}, 4, ["'id'", "began at", "line 2", "[DOCUMENT, id]"]),
        ("id,word,tag\n1,a,X\n1,b,\n", {"sentence": "id"}, 3, ["column 'tag': nothing stands here"]),
        ("id,word,tag\n1,,X\n1,b,Y\n", {"sentence": "id"}, 2, ["column 'word': nothing stands here"]),
        ("id,word,tag\n,a,X\n1,b,Y\n", {"sentence": "id"}, 2, ["'id'", "the first row names no sentence"]),
        ("id,word,tag\n1,a,X\n1,b,Y\n", {"sentence": "di"}, None, ["no column 'di'", "source.sentence"]),
        ("id,word,tag\n1,a,X\n1,b,Y\n", {"tags": "tga"}, None, ["no column 'tga'", "source.tags"]),
        ("id,word,tag\n1,a,X\n1,b,Y\n", {"group": "doc"}, None, ["no column 'doc'"]),
        ("word,tag\na,X\nb,Y\n", {}, None, ["nothing tells one sentence from the next", "sentence: COLUMN"]),
        ("word,tag\na b,X Y\nc d,X X\n", {}, 2, ["a tag has no blanks", "rows: sentences"]),
        ("word,tag\na b c,X Y\n", {"rows": "sentences"}, 2, ["3 tokens and 2 tags"]),
        ("word,tag\na b,X Y\n ,X\n", {"rows": "sentences"}, 3, ["column 'word': nothing stands here"]),
        ("word,tag\n\"['a', 'b']\",X Y\n", {"rows": "sentences"}, 2, ["a list as Python prints it"]),
        ('word,tag\n",Y\na,X\n",Y\n\nb,X\n', {}, 2, ["a quote that does not end on its line"]),
        ("word,tag\na,X,Z\n", {}, 2, ["another number of fields"]),
        ("d,id,word,tag\n1,1,a,X\n2,1,b,X\n", {"sentence": "id", "group": "d"}, 3, ["'d'", "'1' and then '2'"]),
    ],
)
def test_mistakes_are_answered_with_their_line(
    tmp_path: Path, text: str, more: dict[str, Any], line: int | None, said: list[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        raw_of(path, **more)
    problem = caught.value.problems[0]
    assert (problem.file, problem.line) == (str(path), line)
    for part in said:
        assert part in str(caught.value)


def test_columns_of_parquet_that_hold_no_words(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"word": [["a"], ["b", None]], "tag": [[1], [1, 2]]}), path)
    with pytest.raises(InputError, match="`rows: sentences` where each row holds a sentence"):
        raw_of(path)
    with pytest.raises(InputError, match="row 2: column 'word': nothing stands here"):
        raw_of(path, rows="sentences")
    parquet.write_table(pa.table({"word": [b"a", b"b"], "tag": [1, 2]}), path)
    with pytest.raises(InputError, match="has a type that is not read here"):
        raw_of(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tags": "word"}, "tokens and tags are the same column"),
        ({"sentence": "tag"}, "column 'tag' is stated as tags and as sentence or group"),
        ({"rows": "sentences", "sentence": "id"}, "here each row is a sentence"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSpec.model_validate({"source": {**BY_WORD, **changes}})
