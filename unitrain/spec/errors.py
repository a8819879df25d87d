"""What a user sees when an input is wrong: file, line, field, found, allowed, nearest spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

FieldPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One mistake in one input.

    Every part but ``message`` is optional: a file that is missing has no line, a data row has no field.
    """

    message: str
    file: str | None = None
    line: int | None = None
    field: FieldPath = ()
    found: str | None = None
    allowed: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = ""
        if self.file is not None:
            place = self.file + (f":{self.line}" if self.line is not None else "") + ": "
        elif self.line is not None:
            place = f"line {self.line}: "
        name = format_field(self.field)
        lines = [place + (f"{name}: " if name else "") + self.message]
        for label, text in (("found", self.found), ("allowed", self.allowed), ("hint", self.hint)):
            if text is not None:
                lines.append(f"  {label + ':':<8} {text}")
        return "\n".join(lines)


class InputError(Exception):
    """A mistake in what the user gave: shown without a traceback, exit code 2.

    Parameters
    ----------
    message
        What is wrong, as a sentence that starts in lower case.
    file, line, field, found, allowed, hint
        As in `Problem`.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        field: FieldPath = (),
        found: str | None = None,
        allowed: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.problems: tuple[Problem, ...] = (Problem(message, file, line, tuple(field), found, allowed, hint),)
        super().__init__(message)

    @classmethod
    def from_problems(cls, problems: Iterable[Problem]) -> InputError:
        """Gather several problems into one error; at least one is needed."""
        found = tuple(problems)
        error = cls(found[0].message)
        error.problems = found
        return error

    def located(self, file: str, line: int | None = None) -> InputError:
        """Return the same error, with file and line where they were missing."""
        return InputError.from_problems(
            replace(
                problem,
                file=file if problem.file is None else problem.file,
                line=line if problem.line is None else problem.line,
            )
            for problem in self.problems
        )

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def format_field(path: Sequence[str | int]) -> str:
    """Write a field path the way it would be typed: ``layers[2].kernel_size``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice spelt most like ``word``, or None when none is near."""
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """Return the hint line for a misspelt word, or None when nothing is near."""
    choice = nearest(word, choices)
    return None if choice is None else f"did you mean '{choice}'?"


def unknown_name(kind: str, word: str, choices: Iterable[str], field: FieldPath = ()) -> InputError:
    """Build the error for a name that is none of the known ones."""
    known = list(choices)
    return InputError(
        f"unknown {kind} '{word}'",
        field=field,
        found=word,
        allowed=", ".join(known) or "none",
        hint=did_you_mean(word, known),
    )
