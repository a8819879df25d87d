"""Tokens with tags in the columns of a table: a token a row, or a sentence a row. A sentence is a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.data.columns import as_word, check_roles, column_error
from unitrain.data.files import find_file
from unitrain.data.raw import Parts, Raw, show
from unitrain.data.sources.table import Columns, read_columns
from unitrain.data.sources.tagged import tagged_raw
from unitrain.data.sources.text import words
from unitrain.spec.errors import InputError
from unitrain.spec.sources.tagged import TaggedTable

# Nothing but an empty field is missing: "NA", "None" and "null" are words.
_MISSING = ("",)


@dataclass
class _Sentence:
    """Where a sentence begins, its pairs of token and tag, its group, and what tells it from others."""

    row: int
    pairs: list[tuple[str, str]] = field(default_factory=list)
    group: str | None = None
    key: tuple[str | None, ...] = ()


def read(source: TaggedTable, folder: Path, group: str | None) -> Parts:
    """Read the file a recipe names and those of the other parts; ``group`` is the column to split by."""
    names = {"train": source.file, "validation": source.validation_file, "test": source.test_file}
    return {
        part: tagged_table_raw(source, find_file(name, folder), group)
        for part, name in names.items()
        if name is not None
    }


def tagged_table_raw(source: TaggedTable, path: Path, group: str | None, *, bare: bool = False) -> Raw:
    """Read one file: feature ``tokens`` and target ``tags``, tuples of words, a sentence each.

    ``bare`` lets a file pass that has no column of tags or of groups, or a single sentence.

    Raises
    ------
    InputError
        A column is not there; a token without a tag, sentences that nothing separates or that come back: with the line.
    """
    columns = read_columns(path, source.separator, _MISSING)
    file = columns.origin.file
    check_roles([source.tokens], columns.values, file, "source.tokens")
    check_roles(source.sentence or (), columns.values, file, "source.sentence")
    tagged = not bare or source.tags in columns.values
    group = group if group in columns.values or not bare else None
    check_roles([source.tags] if tagged else [], columns.values, file, "source.tags")
    check_roles([] if group is None else [group], columns.values, file, "group")
    by_row = source.rows == "sentences"
    found = list((_sentence_rows if by_row else _token_rows)(source, columns, group, tagged))
    if not found:
        raise InputError("the file holds no sentences", file=file)
    if len(found) == 1 and not by_row and not bare:
        raise _not_separated(source, columns, found[0])
    rows = [sentence.row for sentence in found]
    raw = tagged_raw([sentence.pairs for sentence in found], columns.origin, rows)
    if group is not None:
        raw = replace(raw, group=words(sentence.group for sentence in found))
    return raw if tagged else replace(raw, targets={})


def _token_rows(source: TaggedTable, columns: Columns, group: str | None, tagged: bool) -> Iterator[_Sentence]:
    """Gather rows of a token each into sentences."""
    tokens = _words(columns, source.tokens)
    tags = _words(columns, source.tags) if tagged else [""] * columns.count
    named = {name: _words(columns, name) for name in source.sentence or ()}
    keys = list(_keys(columns, named))
    groups = None if group is None else _words(columns, group)
    apart = np.zeros(columns.count, dtype=bool) if named else _after_blank_lines(columns)
    seen: dict[tuple[str | None, ...], int] = {}
    current: _Sentence | None = None
    for row, (token, tag) in enumerate(zip(tokens, tags, strict=True)):
        if token is None and not tag and all(values[row] is None for values in named.values()):
            if current is not None and not named:
                yield current
                current = None
            continue
        if current is None or apart[row] or keys[row] != current.key:
            if current is not None:
                yield current
            if named and keys[row] in seen:
                raise _came_back(source, columns, row, keys[row], seen[keys[row]])
            seen[keys[row]] = row
            current = _Sentence(row, group=None if groups is None else groups[row], key=keys[row])
        current.pairs.append(_pair(source, columns, row, token, tag))
        if groups is not None and groups[row] not in (None, current.group):
            raise column_error(
                columns.origin,
                row,
                str(group),
                "the group changes within a sentence",
                found=f"{show(current.group)} and then {show(groups[row])}",
            )
    if current is not None:
        yield current


def _keys(columns: Columns, named: Mapping[str, Sequence[str | None]]) -> Iterator[tuple[str | None, ...]]:
    """Return what names the sentence of each row; a value that is left out is that of the row above."""
    key: tuple[str | None, ...] = (None,) * len(named)
    for row, values in enumerate(zip(*named.values(), strict=True) if named else [()] * columns.count):
        key = tuple(before if value is None else value for value, before in zip(values, key, strict=True))
        if None in key:
            name = list(named)[key.index(None)]
            raise column_error(columns.origin, row, name, "the first row names no sentence", found="nothing")
        yield key


def _pair(source: TaggedTable, columns: Columns, row: int, token: str | None, tag: str | None) -> tuple[str, str]:
    """Return a token and its tag. Raises `InputError` where one is missing or holds what a quote has swallowed."""
    for name, word in ((source.tokens, token), (source.tags, tag)):
        if word is None:
            raise column_error(columns.origin, row, name, "nothing stands here", found="a missing value")
        if "\n" in word:
            raise column_error(
                columns.origin,
                row,
                name,
                "a quote that does not end on its line",
                found=show(word),
                hint='a quotation mark is written """" in a table; files that do not quote are read with '
                '`{type: conll, separator: ","}`',
            )
    if tag is not None and len(tag.split()) > 1:
        hint = "`rows: sentences` where each row holds a sentence"
        raise column_error(columns.origin, row, source.tags, "a tag has no blanks", found=show(tag), hint=hint)
    return str(token), str(tag)


def _sentence_rows(source: TaggedTable, columns: Columns, group: str | None, tagged: bool) -> Iterator[_Sentence]:
    """Take rows of a sentence each apart."""
    tokens = _lists(columns, source.tokens)
    tags = _lists(columns, source.tags) if tagged else [[""] * len(sentence) for sentence in tokens]
    groups = None if group is None else _words(columns, group)
    for row, (some, others) in enumerate(zip(tokens, tags, strict=True)):
        if len(some) != len(others):
            raise column_error(
                columns.origin,
                row,
                source.tags,
                "another number of tags than of tokens",
                found=f"{len(some)} tokens and {len(others)} tags",
                hint="blanks part them: a token has none inside",
            )
        yield _Sentence(row, list(zip(some, others, strict=True)), None if groups is None else groups[row])


def _lists(columns: Columns, name: str) -> list[list[str]]:
    """Return the words of each row, from lists or from text with blanks between them."""
    import pyarrow as pa

    values = columns.values[name]
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        found = _words(columns, name)
        for row, text in enumerate(found):
            if text is not None and text.startswith(("['", '["')):
                hint = "write them with blanks between, or the lists to Parquet"
                raise column_error(columns.origin, row, name, "a list as Python prints it", found=show(text), hint=hint)
        rows: list[list[str | None]] = [[] if text is None else list(text.split()) for text in found]
    else:
        _check_type(columns, name, values.type.value_type)
        rows = [[_word(word) for word in words or ()] for words in values.to_pylist()]
    lists = [[word for word in words if word] for words in rows]
    for row, (whole, kept) in enumerate(zip(rows, lists, strict=True)):
        if not whole or len(kept) < len(whole):
            raise column_error(columns.origin, row, name, "nothing stands here", found="a missing value")
    return lists


def _words(columns: Columns, name: str) -> list[str | None]:
    """Return one column as text, None where nothing stands."""
    _check_type(columns, name, columns.values[name].type)
    return [_word(value) for value in columns.values[name].to_pylist()]


def _word(value: object) -> str | None:
    """Write a value as a word, None where nothing stands."""
    return None if value is None else as_word(value) or None


def _check_type(columns: Columns, name: str, kind: Any) -> None:
    """See that a column of Parquet holds words or numbers. Raises `InputError`."""
    import pyarrow.types as types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    if not any(test(kind) for test in (*tests, types.is_null)):
        raise InputError(
            f"column '{name}' has a type that is not read here",
            file=columns.origin.file,
            found=str(kind),
            allowed="text, numbers, booleans",
            hint="`rows: sentences` where each row holds a sentence" if types.is_list(kind) else None,
        )


def _after_blank_lines(columns: Columns) -> Any:
    """Tell which rows come after a blank line, bool ``[row]``; a reader of tables passes over these."""
    apart = np.zeros(columns.count, dtype=bool)
    if columns.origin.read_lines is not None:
        lines = np.asarray(columns.origin.read_lines())[: columns.count]
        apart[1 : len(lines)] = np.diff(lines) > 1
    return apart


def _came_back(source: TaggedTable, columns: Columns, row: int, key: tuple[str | None, ...], first: int) -> InputError:
    name = (source.sentence or ())[-1]
    return column_error(
        columns.origin,
        row,
        name,
        "the sentence has ended before: its rows do not follow one another",
        found=f"{', '.join(str(word) for word in key)}, which began at {columns.origin.name(first)}",
        hint=f"sort the file; or, where numbers begin anew in each document, `sentence: [DOCUMENT, {name}]`",
    )


def _not_separated(source: TaggedTable, columns: Columns, only: _Sentence) -> InputError:
    long = any(" " in token for token, _ in only.pairs)
    return InputError(
        "nothing tells one sentence from the next",
        file=columns.origin.file,
        found=f"{len(only.pairs):,} rows of one sentence",
        allowed=", ".join(columns.values),
        hint="`rows: sentences` where each row holds a sentence"
        if long or source.sentence
        else "name the column that does: `sentence: COLUMN`; or put a blank row between two",
    )
