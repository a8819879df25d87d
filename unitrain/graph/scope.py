"""Names in a model, or in one use of a block, while its layers are expanded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unitrain.spec.errors import FieldPath, InputError
from unitrain.spec.layers.base import LayerSpec
from unitrain.spec.model import Template


@dataclass(frozen=True)
class Value:
    """What a name in a scope stands for: one node or input, or a block's several outputs."""

    main: str
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Scope:
    """The layers of the model, or of one use of a block, while they are expanded."""

    layers: Sequence[LayerSpec | Template]
    path: FieldPath
    prefix: str
    owner: str
    arguments: Mapping[str, Any]
    blocks: tuple[str, ...]
    given: dict[str, Value]
    names: dict[str, int] = field(default_factory=dict)
    done: dict[str, Value] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    resolved: list[LayerSpec] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def refuse_unused(self, inputs: FieldPath) -> None:
        """Refuse layers and inputs that nothing reads; ``inputs`` is the field that lists the latter."""
        for name in self.given.keys() - self.used:
            raise InputError(f"no layer reads the input '{name}'", field=inputs, found=name)
        for index, name in enumerate(self.order):
            if name not in self.used:
                raise InputError(
                    f"layer '{name}' feeds no output",
                    field=(*self.path, index),
                    hint="name it in an `inputs:` or in `outputs:`",
                )
