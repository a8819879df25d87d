"""How a program is run: in the backend's standard form, or in the fastest that was tried here."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat

from unitrain.spec.base import Spec


class ExecutionSpec(Spec):
    """Which of a backend's forms of the same program trains; ``unitrain tune`` lists them.

    Parameters
    ----------
    mode
        ``fixed`` takes the standard form. ``tuned`` tries all and takes the fastest whose numbers agree. ``auto`` does
        so for runs that would take a minute or more, unless they are ``deterministic``: another form may round
        otherwise, and another machine may choose another.
    candidate
        Take this form, whatever the mode.
    seconds
        How long to try, apart from what a form costs before its first step.
    """

    mode: Literal["auto", "tuned", "fixed"] = "auto"
    candidate: str | None = None
    seconds: PositiveFloat = 1.0
