"""Arguments in templates: ``$name`` and ``${arithmetic}``, worked out without running any code.

A value that is exactly one ``$name`` or ``${...}`` takes the result's own type; there is no substitution
inside longer strings.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from unitrain.spec.errors import InputError, did_you_mean

Argument = int | float | bool | str | list[int] | list[float] | list[str]

REFERENCE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([^{}]{1,200})\})\Z")
_LARGEST = 10**12
_LARGEST_EXPONENT = 64


def _power(base: float, exponent: float) -> Any:
    """Raise to a power of ordinary size. Raises `TypeError` where the result is none."""
    if abs(exponent) > _LARGEST_EXPONENT:
        raise TypeError(f"an exponent of more than {_LARGEST_EXPONENT}")
    result = base**exponent
    if isinstance(result, complex) or abs(result) > _LARGEST:
        raise TypeError("a power that is no number of ordinary size")
    return result


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def is_reference(value: Any) -> bool:
    """Tell whether a value stands for an argument."""
    return isinstance(value, str) and value.startswith("$")


def has_reference(value: Any) -> bool:
    """Tell whether a value, or any value inside it, stands for an argument."""
    if isinstance(value, Mapping):
        return any(has_reference(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_reference(item) for item in value)
    return is_reference(value)


def substitute(value: Any, arguments: Mapping[str, Any]) -> Any:
    """Replace every reference inside a plain value by what it stands for.

    Raises
    ------
    InputError
        A reference is malformed, names no argument, or cannot be computed. ``field`` is its path in ``value``.
    """
    if isinstance(value, Mapping):
        return {key: _at(key, item, arguments) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_at(index, item, arguments) for index, item in enumerate(value)]
    return evaluate(value, arguments) if is_reference(value) else value


def _at(key: str | int, value: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return substitute(value, arguments)
    except InputError as error:
        problem = error.problems[0]
        raise InputError(
            problem.message,
            field=(key, *problem.field),
            found=problem.found,
            allowed=problem.allowed,
            hint=problem.hint,
        ) from None


def evaluate(text: str, arguments: Mapping[str, Any]) -> Any:
    """Work out one reference. Raises `InputError`."""
    match = REFERENCE.match(text)
    if match is None:
        raise InputError("not an argument", found=text, allowed="$name or ${arithmetic on names and numbers}")
    name, expression = match.groups()
    if name is not None:
        return _lookup(name, arguments)
    try:
        with warnings.catch_warnings():
            # Python warns of odd escapes and comparisons in what it parses; the answer here is an error or a value.
            warnings.simplefilter("ignore")
            tree = ast.parse(expression.strip(), mode="eval")
        return _compute(tree.body, arguments, text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(
            "not an expression", found=text, allowed="names, numbers, + - * / // % **, comparisons, a if b else c"
        ) from None
    except (TypeError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"cannot be computed: {error}", found=text) from None


def _lookup(name: str, arguments: Mapping[str, Any]) -> Any:
    if name not in arguments:
        raise InputError(
            f"unknown argument '{name}'",
            found=f"${name}",
            allowed=", ".join(sorted(arguments)) or "none is declared",
            hint=did_you_mean(name, arguments),
        )
    return arguments[name]


def _compute(node: ast.expr, arguments: Mapping[str, Any], text: str) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str)):
        return node.value
    if isinstance(node, ast.Name):
        return _lookup(node.id, arguments)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_compute(node.operand, arguments, text)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left = _compute(node.left, arguments, text)
        right = _compute(node.right, arguments, text)
        if not all(isinstance(part, (int, float)) and abs(part) <= _LARGEST for part in (left, right)):
            raise InputError("arithmetic needs numbers of ordinary size", found=text)
        return _BINARY[type(node.op)](left, right)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
        return _COMPARE[type(node.ops[0])](
            _compute(node.left, arguments, text), _compute(node.comparators[0], arguments, text)
        )
    if isinstance(node, ast.IfExp):
        chosen = node.body if _compute(node.test, arguments, text) else node.orelse
        return _compute(chosen, arguments, text)
    raise InputError(
        "not an expression", found=text, allowed="names, numbers, + - * / // % **, comparisons, a if b else c"
    )
