"""Reading and writing YAML: only data, the scalars of YAML 1.2, and no file that can hurt."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitrain.spec import yaml
from unitrain.spec.errors import InputError, Problem
from unitrain.spec.yaml import parse_yaml, read_yaml, write_yaml


def problem_in(text: str) -> Problem:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, file="m.yaml")
    (problem,) = caught.value.problems
    assert problem.file == "m.yaml"
    return problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E+3", 1e3),
        ("1.", 1.0),
        (".5", 0.5),
        ("-0.0", -0.0),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", 10),
        ("+7", 7),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        # Words and times of YAML 1.1 are text in 1.2.
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2024-01-31", "2024-01-31"),
        ("0b11", "0b11"),
        ("'1e-3'", "1e-3"),
        ('"true"', "true"),
        ("$width", "$width"),
        ("1e", "1e"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    found = parse_yaml(f"key: {text}").data["key"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read() -> None:
    assert all(math.isnan(value) for value in parse_yaml("[.nan, .NaN, .NAN]").data)


scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text()
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), plain, min_size=1, max_size=4) | st.lists(plain, min_size=1, max_size=4))
def test_what_is_written_reads_back_the_same(data: Any) -> None:
    again = parse_yaml(write_yaml(data)).data
    assert again == data
    assert repr(again) == repr(data)  # 1 is not 1.0 and not True


def test_shared_values_are_written_out() -> None:
    shared = [1, 2]
    assert "&" not in write_yaml({"a": shared, "b": shared})


def test_lines_point_at_fields() -> None:
    document = parse_yaml("name: m\nlayers:\n  - type: dense\n    units: 3\n  - {type: relu}\n")
    assert document.line(("name",)) == 1
    assert document.line(("layers", 0, "units")) == 4
    assert document.line(("layers", 1, "type")) == 5
    # A field that is not there is looked for around it.
    assert document.line(("layers", 0, "activation")) == 3
    assert document.line(("absent",)) == 1


def test_an_alias_is_its_anchor() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x\n").data == {"a": [1, 2], "b": [1, 2]}


def test_a_tab_is_named() -> None:
    problem = problem_in("layers:\n\t- type: dense\n")
    assert problem.line == 2
    assert "tab" in str(problem.hint)


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    names = "abcdefghi"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join(['*' + last] * 10)}]" for last, name in itertools.pairwise(names)]
    start = time.perf_counter()
    problem = problem_in("\n".join(lines))
    assert time.perf_counter() - start < 10
    assert "too many values" in problem.message
    assert problem.allowed == f"{yaml.MAXIMUM_NODES:,} values"


@pytest.mark.parametrize("text", ["a: &x [*x]\n", "a: &x {b: {c: *x}}\n", "&x [1, *x]\n"])
def test_an_alias_inside_itself_is_refused(text: str) -> None:
    assert "nested too deeply" in problem_in(text).message


@pytest.mark.parametrize("depth", [100, 5000, 1_000_000])
def test_deep_nesting_is_refused_at_once(depth: int) -> None:
    start = time.perf_counter()
    assert "nested too deeply" in problem_in("[" * depth + "]" * depth).message
    assert time.perf_counter() - start < 2


def test_nesting_that_is_allowed_is_read() -> None:
    depth = yaml.MAXIMUM_DEPTH
    data = parse_yaml("[" * depth + "]" * depth).data
    for _ in range(depth - 1):
        (data,) = data
    assert data == []


def test_a_list_without_end_is_refused_before_it_is_read() -> None:
    start = time.perf_counter()
    problem = problem_in("[" + "1, " * 1_000_000 + "]")
    assert problem.message == "too many values"
    assert time.perf_counter() - start < 30


def test_a_key_that_stands_twice_is_refused_with_both_lines() -> None:
    problem = problem_in("name: a\nlayers: []\nname: b\n")
    assert (problem.line, problem.field) == (3, ("name",))
    assert "line 1" in str(problem.hint)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "~\n"])
def test_an_empty_document_is_refused(text: str) -> None:
    assert problem_in(text).message == "the file is empty"


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system [ls]\n",
        "a: !own {b: 1}\n",
        "a: !!binary aGVsbG8=\n",
        "a: !!set {x, y}\n",
        "a: !!timestamp 2024-01-31\n",
    ],
)
def test_tags_are_not_read(text: str) -> None:
    problem = problem_in(text)
    assert problem.message == "YAML tags are not read"
    assert (problem.line, problem.field) == (1, ("a",))


@pytest.mark.parametrize("text", ["a: !!int x\n", "a: !!float x\n", "a: !!bool 3\n"])
def test_a_standard_tag_on_another_value_is_an_error_of_the_input(text: str) -> None:
    with pytest.raises(InputError):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["a: [1, 2\n", "a: b: c\n", "}\n", "a: 'x\n", "- 1\na: 2\n", "a: @x\n", "*x\n"])
def test_broken_syntax_has_a_line(text: str) -> None:
    problem = problem_in(text)
    assert problem.message.startswith("not valid YAML")
    assert problem.line is not None


def test_two_documents_are_refused() -> None:
    assert problem_in("a: 1\n---\nb: 2\n").line == 2


def test_a_key_is_a_word() -> None:
    assert problem_in("[1, 2]: x\n").message == "a key must be a word"


def test_a_number_of_a_thousand_digits_is_refused() -> None:
    assert problem_in("a: " + "9" * 10_000).message == "the number is too long"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_data_or_an_input_error(content: bytes) -> None:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return
    with contextlib.suppress(InputError):
        parse_yaml(text)


@settings(deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#,? \n\t0.e~%@`<", max_size=60))
def test_any_text_gives_data_or_an_input_error(text: str) -> None:
    with contextlib.suppress(InputError):
        parse_yaml(text)


def refused(path: Path) -> Problem:
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    (problem,) = caught.value.problems
    assert problem.file == str(path)
    return problem


def test_a_file_of_a_hundred_megabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as handle:
        handle.truncate(100 * 1024 * 1024)
    start = time.perf_counter()
    assert refused(path).found == "104,857,600 bytes"
    assert time.perf_counter() - start < 1


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "lenet.yaml").write_text("a: 1")
    assert refused(tmp_path / "lennet.yaml").hint == "did you mean 'lenet.yaml'?"
    assert "does not exist" in str(refused(tmp_path / "no" / "lenet.yaml").hint)


def test_a_folder_and_a_binary_file_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path).message == "not a file"
    path = tmp_path / "weights.yaml"
    path.write_bytes(b"\x93NUMPY\xff\xfe\x00")
    assert refused(path).message == "the file is not UTF-8 text"
    path.write_bytes(b"a: \x00\x01\n")
    assert refused(path).message.startswith("not valid YAML")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: m\r\n")
    assert read_yaml(path).data == {"name": "m"}
