"""Turns an elementwise function into a list of NumPy calls that write into memory made once.

Arithmetic on arrays makes a new array for every operation. Here the function is called once with symbols, which write
down what is computed with them; the list is then run on arrays as often as wanted, in the same order and so with the
same bits. Results go where they belong, and what lies between into a few registers that stay in the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitrain.backends.numpy.registry import Array


class Symbol(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands for an array, or for a number that is known only when the list is run."""

    # A symbol is equal to itself alone; it is a key of dictionaries.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self, calls: list[Call], scalar: bool) -> None:
        self._calls = calls
        self.scalar = scalar

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **options: Any) -> Any:
        """Write a call down."""
        if method != "__call__" or options or ufunc.nout != 1:
            return NotImplemented
        scalar = all(operand.scalar for operand in operands if isinstance(operand, Symbol))
        return write_down(self._calls, ufunc, operands, scalar)

    def clip(self, low: float, high: float, **_: Any) -> Any:
        """Limit to ``low .. high``: what `numpy.clip` asks of its argument."""
        return np.minimum(np.maximum(self, low), high)  # type: ignore[call-overload]  # goes by __array_ufunc__


@dataclass(frozen=True)
class Call:
    """``result = function(*operands)``; operands are symbols or constants."""

    function: Any
    operands: tuple[Any, ...]
    result: Symbol


def write_down(calls: list[Call], function: Any, operands: tuple[Any, ...], scalar: bool) -> Symbol:
    """Add a call to the list; return its result."""
    result = Symbol(calls, scalar)
    calls.append(Call(function, operands, result))
    return result


# A function, and the places in the table of its operands and its result.
Step = tuple[Any, tuple[int, ...], int]


class Elementwise:
    """A function of arrays of one length and of numbers, run in place.

    Parameters
    ----------
    function
        Given symbols for the arrays, by name, and for the numbers, returns new values for some of the arrays. It may
        use operators and ufuncs.
    names
        Names of the arrays.
    scalars
        How many numbers there are.
    """

    def __init__(
        self,
        function: Callable[[Mapping[str, Any], Sequence[Any]], Mapping[str, Any]],
        names: Sequence[str],
        scalars: int,
    ) -> None:
        calls: list[Call] = []
        arrays = {name: Symbol(calls, scalar=False) for name in names}
        numbers = [Symbol(calls, scalar=True) for _ in range(scalars)]
        results = dict(function(arrays, numbers))
        made, uses = {call.result for call in calls}, Counter(map(id, results.values()))
        for name, value in results.items():
            # Every new value is a result of its own, also what is another array as it stands.
            if value not in made or uses[id(value)] > 1 or results[name].scalar:
                results[name] = write_down(calls, np.positive, (value,), False)
        # All operands stand in one table: arrays, numbers, constants, what is computed of numbers alone, registers.
        self._table: list[Any] = []
        self._place = {symbol: self._put() for symbol in (*arrays.values(), *numbers)}
        self._scalar_steps: list[Step] = []
        self._steps: list[Step] = []
        self._registers: list[int] = []
        for call in calls:
            if call.result.scalar:
                operands = self._operands(call)
                self._place[call.result] = self._put()
                self._scalar_steps.append((call.function, operands, self._place[call.result]))
        self._schedule([call for call in calls if not call.result.scalar], arrays, results)

    def _put(self, value: Any = None) -> int:
        self._table.append(value)
        return len(self._table) - 1

    def _operands(self, call: Call) -> tuple[int, ...]:
        return tuple(self._place[o] if isinstance(o, Symbol) else self._put(o) for o in call.operands)

    def _schedule(self, calls: Sequence[Call], arrays: Mapping[str, Symbol], results: Mapping[str, Symbol]) -> None:
        """Give each result a place: the array it is the new value of, if nobody reads the old one later; or a register.

        A register is free again once its content has been read last, for the result of that very call too.
        """
        last_read = {o: number for number, call in enumerate(calls) for o in call.operands if isinstance(o, Symbol)}
        owner = {value: name for name, value in results.items()}
        free: list[int] = []
        for number, call in enumerate(calls):
            operands = self._operands(call)
            free.extend(
                self._place[symbol]
                for symbol in dict.fromkeys(o for o in call.operands if isinstance(o, Symbol))
                if last_read[symbol] == number and symbol not in owner and self._place[symbol] in self._registers
            )
            name = owner.get(call.result)
            if name is not None and last_read.get(arrays[name], -1) <= number:
                place = self._place[arrays[name]]
            elif free:
                place = free.pop()
            else:
                place = self._put()
                self._registers.append(place)
            self._place[call.result] = place
            self._steps.append((call.function, operands, place))
        for value, name in owner.items():
            if self._place[value] != self._place[arrays[name]]:
                self._steps.append((np.positive, (self._place[value],), self._place[arrays[name]]))

    @np.errstate(all="ignore")
    def run(self, arrays: Sequence[Array], numbers: Sequence[Any], part: int) -> None:
        """Compute ``part`` elements at a time, and write the new values into the arrays, which stand as named."""
        table = list(self._table)
        table[len(arrays) : len(arrays) + len(numbers)] = numbers
        for function, operands, place in self._scalar_steps:
            table[place] = function(*[table[operand] for operand in operands])
        size = len(arrays[0])
        memory = np.empty((len(self._registers), min(part, size)), arrays[0].dtype)
        for start in range(0, size, part):
            table[: len(arrays)] = [array[start : start + part] for array in arrays]
            length = len(table[0])
            for register, row in zip(self._registers, memory, strict=True):
                table[register] = row[:length]
            for function, operands, place in self._steps:
                function(*[table[operand] for operand in operands], out=table[place])
