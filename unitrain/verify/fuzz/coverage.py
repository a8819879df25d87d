"""What a set of cases has covered of what could be drawn: layers, options, pairs of adjacent layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from unitrain.spec.layers import LAYERS
from unitrain.spec.recipe import OutputLoss
from unitrain.verify.fuzz.case import VerifyCase
from unitrain.verify.fuzz.catalogue import pairs, profile
from unitrain.verify.fuzz.fields import idle, kind_of, option_of, options
from unitrain.verify.fuzz.generate import LOSSES, OPTIMIZERS, SCHEDULES

# The rows of the table, in words.
KINDS = {
    "layers": "kinds of layers",
    "options": "options of layers and initialisers",
    "training": "losses, optimizers and schedules, and their options",
    "pairs": "pairs of adjacent layers",
}


@dataclass
class Coverage:
    """What has been covered, and how often: ``conv2d``, ``conv2d.padding = same``, ``conv2d > relu``.

    Parameters
    ----------
    cases
        How many cases were counted.
    seen
        For each of `KINDS` how often each thing was seen; what cannot be drawn is not counted.
    """

    cases: int = 0
    seen: dict[str, dict[str, int]] = field(default_factory=lambda: {kind: {} for kind in KINDS})

    def add(self, case: VerifyCase) -> None:
        """Count a case."""
        self.cases += 1
        graph = case.graph()
        types = {node.name: node.layer.type for node in graph.nodes}
        for node in graph.nodes:
            self._count("layers", node.layer.type)
            for label in _labels(node.layer):
                self._count("options", label)
            for source in node.inputs:
                if source in types:
                    self._count("pairs", f"{types[source]} > {node.layer.type}")
        for part in (*case.loss.values(), case.optimizer, case.schedule):
            if part is not None:
                for label in _labels(part):
                    self._count("training", label)

    def merge(self, other: Coverage) -> None:
        """Count what another set of cases covered, too."""
        self.cases += other.cases
        for kind, labels in other.seen.items():
            for label, count in labels.items():
                self.seen[kind][label] = self.seen[kind].get(label, 0) + count

    def missing(self, kind: str) -> list[str]:
        """Return what is possible and was not seen."""
        return sorted(possible()[kind] - self.seen[kind].keys())

    def to_plain(self) -> dict[str, Any]:
        """Return the counts as plain values for JSON."""
        return {"cases": self.cases, "seen": {kind: dict(sorted(labels.items())) for kind, labels in self.seen.items()}}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Coverage:
        """Read what `to_plain` wrote. Raises `KeyError`, `TypeError` or `ValueError` when it is something else."""
        return cls(
            int(plain["cases"]),
            {kind: {str(label): int(n) for label, n in plain["seen"].get(kind, {}).items()} for kind in KINDS},
        )

    def lines(self, width: int = 100) -> list[str]:
        """Return a line for each of `KINDS`, which names of what is missing as much as fits the width."""
        found = []
        for kind, words in KINDS.items():
            missing, count = self.missing(kind), len(possible()[kind])
            line = f"{words}: {count - len(missing)} of {count}"
            # Pairs are far too many for all of them to be drawn.
            named = 0 if kind == "pairs" else len(missing)
            while named and len(_with_missing(line, missing, named)) > width:
                named -= 1
            found.append(_with_missing(line, missing, named) if named else line)
        return found

    def _count(self, kind: str, label: str) -> None:
        if label in possible()[kind]:
            self.seen[kind][label] = self.seen[kind].get(label, 0) + 1


def _with_missing(line: str, missing: list[str], named: int) -> str:
    rest = f", and {len(missing) - named} more" if len(missing) > named else ""
    return f"{line}; not yet {', '.join(missing[:named])}{rest}"


def _labels(spec: BaseModel) -> Iterator[str]:
    """Name a specification and the options of its fields, and the same of the specifications inside it."""
    kind, values = kind_of(type(spec)), dict(spec)
    yield kind
    for name in options(type(spec)):
        if not idle(name, values):
            yield f"{kind}.{name} = {option_of(spec, name)}"
            if isinstance(values[name], BaseModel):
                yield from _labels(values[name])


@lru_cache(maxsize=1)
def possible() -> Mapping[str, frozenset[str]]:
    """Return all that can be covered, found from the types and by trying; always the same."""
    options_of_layers: set[str] = set()
    for layer in LAYERS:
        known = profile(layer).possible
        options_of_layers |= {f"{kind_of(layer)}.{name} = {choice.label}" for name in known for choice in known[name]}
        for inner in _inner(layer):
            options_of_layers |= set(_possible_labels(inner))
    parts: tuple[type[BaseModel], ...] = (OutputLoss, *LOSSES, *OPTIMIZERS, *SCHEDULES)
    training = {label for part in parts for label in _possible_labels(part)}
    return {
        "layers": frozenset(map(kind_of, LAYERS)),
        "options": frozenset(options_of_layers),
        "training": frozenset(training),
        "pairs": frozenset(f"{kind_of(first)} > {kind_of(second)}" for first, second in pairs()),
    }


def _possible_labels(spec: type[BaseModel]) -> Iterator[str]:
    kind = kind_of(spec)
    yield kind
    for name, choices in options(spec).items():
        for choice in choices:
            yield f"{kind}.{name} = {choice.label}"


def _inner(spec: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield the specifications that may stand inside another."""
    for choices in options(spec).values():
        for choice in choices:
            if choice.spec is not None:
                yield choice.spec
                yield from _inner(choice.spec)
