"""Arguments and arithmetic: what may be written, what it gives, and that nothing is ever run."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unitrain.spec.errors import InputError, Problem
from unitrain.spec.expressions import evaluate, has_reference, substitute

ARGUMENTS: dict[str, Any] = {"width": 7, "rate": 0.25, "name": "relu", "size": [3, 2], "deep": True, "zero": 0}


def refused(text: str) -> Problem:
    with pytest.raises(InputError) as caught:
        evaluate(text, ARGUMENTS)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$width", 7),
        ("$name", "relu"),
        ("$size", [3, 2]),
        ("$deep", True),
        ("${width}", 7),
        ("${ width }", 7),
        ("${2 + 3 * 4}", 14),
        ("${(2 + 3) * 4}", 20),
        ("${width // 2}", 3),
        ("${-width // 2}", -4),
        ("${width / 2}", 3.5),
        ("${width % 4}", 3),
        ("${10 - 4 - 3}", 3),
        ("${2 * -width}", -14),
        ("${-2 + width}", 5),
        ("${2 ** width}", 128),
        ("${-2 ** 2}", -4),
        ("${2 ** -1}", 0.5),
        ("${1e-3 * width}", 0.007),
        ("${1 if width > 6 else 2}", 1),
        ("${1 if width <= 6 else 2}", 2),
        ("${1 if deep else 2}", 1),
        ("${'same' if width == 7 else 'valid'}", "same"),
        ("${1 if name != 'relu' else 2}", 2),
        ("${4 if width < 5 else 8 if width < 10 else 16}", 8),
        # Only the branch that is taken is worked out.
        ("${0 if zero == 0 else 1 // zero}", 0),
    ],
)
def test_references_and_arithmetic(text: str, value: Any) -> None:
    found = evaluate(text, ARGUMENTS)
    assert found == value
    assert type(found) is type(value)


# Eight of these multiplied stay below the largest number that is computed with.
numbers = st.integers(-20, 20) | st.floats(-20, 20).map(lambda value: round(value, 3))
operators = st.sampled_from(["+", "-", "*", "/", "//", "%"])
comparisons = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
arithmetic = st.recursive(
    numbers.map(str) | st.sampled_from(["a", "b"]),
    lambda inner: (
        st.tuples(inner, operators, inner).map(" ".join)
        | inner.map(lambda text: f"({text})")
        | inner.map(lambda text: f"-({text})")
        | st.tuples(inner, inner, comparisons, inner).map(lambda p: f"({p[0]} if {p[1]} {p[2]} {p[3]} else {p[0]})")
    ),
    max_leaves=8,
)


@given(arithmetic, st.integers(-20, 20), st.floats(-20, 20))
def test_arithmetic_is_that_of_python(text: str, a: int, b: float) -> None:
    assume(len(text) <= 200)
    names: dict[str, Any] = {"a": a, "b": b}
    try:
        expected = eval(text, {"__builtins__": {}}, dict(names))
    except ZeroDivisionError:
        with pytest.raises(InputError, match="cannot be computed"):
            evaluate(f"${{{text}}}", names)
        return
    assert repr(evaluate(f"${{{text}}}", names)) == repr(expected)


@pytest.mark.parametrize(
    "text",
    [
        "${__import__('os').system('true')}",
        "${open('x')}",
        "${width.real}",
        "${size[0]}",
        "${(lambda: 1)()}",
        "${[w for w in size]}",
        "${[1, 2]}",
        "${(1, 2)}",
        "${1 << 9}",
        "${1 | 2}",
        "${~1}",
        "${@1}",
        "${width := 3}",
        "${await width}",
        "${f'a'}",
        "${None}",
        "${b'a'}",
        "${1j}",
        "${...}",
        "${1; 2}",
        "${1 +}",
        "${\x00}",
        "${1 < 2 < 3}",
        "${1 in size}",
        "${width and 1}",
    ],
)
def test_nothing_else_is_an_expression(text: str) -> None:
    problem = refused(text)
    assert problem.message == "not an expression"
    assert problem.found == text
    assert "+ - * /" in str(problem.allowed)


@pytest.mark.parametrize(
    "text", ["$", "$$", "$1", "$width.real", "$width + 1", "${}", "${{width}}", "${" + "1" * 201 + "}"]
)
def test_a_dollar_sign_starts_a_whole_reference(text: str) -> None:
    assert refused(text).message == "not an argument"


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    for text in ("$widht", "${2 * widht}"):
        problem = refused(text)
        assert problem.message == "unknown argument 'widht'"
        assert problem.hint == "did you mean 'width'?"
        assert problem.allowed == "deep, name, rate, size, width, zero"


@pytest.mark.parametrize(
    "text",
    ["${1 // zero}", "${1 / zero}", "${1 % zero}", "${-name}", "${1 < name}", "${-size}",
     "${0 ** -1}", "${2 ** 65}", "${9**9**9**9}", "${999999 ** 64}", "${(-1) ** rate}", "${1e12 ** 64.0}"],
)  # fmt: skip
def test_what_cannot_be_computed_is_told(text: str) -> None:
    assert refused(text).message.startswith("cannot be computed")


@pytest.mark.parametrize(
    "text",
    [
        "${name * 3}",
        "${size * 3}",
        "${name + 'x'}",
        "${" + " * ".join(["999999"] * 15) + "}",
        "${1e308 * 10}",
        "${" + "9" * 190 + " + 1}",
    ],
)
def test_arithmetic_is_on_numbers_of_ordinary_size(text: str) -> None:
    start = time.perf_counter()
    assert refused(text).message == "arithmetic needs numbers of ordinary size"
    assert time.perf_counter() - start < 1


@given(st.text(alphabet="$" + "{}abw+-*/%().,<>='\" 019\n\\", max_size=40))
def test_any_text_gives_a_value_or_an_input_error(text: str) -> None:
    for reference in (f"${text}", f"${{{text}}}"):
        with contextlib.suppress(InputError):
            evaluate(reference, {"a": 1, "b": 2.0, "w": "x"})


def test_references_inside_lists_and_mappings_are_replaced() -> None:
    fields = {"shape": ["$width", 2, "${2 * width}"], "inner": {"rate": "$rate"}, "text": "costs $3", "flag": True}
    assert has_reference(fields)
    assert substitute(fields, ARGUMENTS) == {
        "shape": [7, 2, 14],
        "inner": {"rate": 0.25},
        "text": "costs $3",
        "flag": True,
    }
    assert not has_reference({"text": "costs $3", "list": [1, "a"], "none": None})


def test_the_field_of_a_wrong_reference_is_told() -> None:
    with pytest.raises(InputError) as caught:
        substitute({"inner": [1, {"rate": "$raet"}]}, ARGUMENTS)
    (problem,) = caught.value.problems
    assert problem.field == ("inner", 1, "rate")
    assert problem.hint == "did you mean 'rate'?"
