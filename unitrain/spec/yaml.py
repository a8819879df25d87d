"""YAML in, plain values and line numbers out; plain values in, YAML out.

Only data is read: no tags, no object construction. Scalars follow the YAML 1.2 core schema, so ``no`` is a
word and ``1e-3`` a number. Input is bounded in size, depth and alias expansion before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unitrain.spec.errors import FieldPath, InputError

MAXIMUM_BYTES = 4 * 1024 * 1024
MAXIMUM_NODES = 50_000
MAXIMUM_DEPTH = 64


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalar rules of the YAML 1.2 core schema, stopped when a text is too much."""

    count = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one value, and count it."""
        self.count += 1
        self.depth += 1
        line = self.line + 1
        if self.count > MAXIMUM_NODES:
            raise InputError("too many values", line=line, allowed=f"{MAXIMUM_NODES:,} values")
        if self.depth > MAXIMUM_DEPTH + 1:
            raise InputError("nested too deeply", line=line, allowed=f"{MAXIMUM_DEPTH} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


_CORE_SCALARS = (
    ("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    ("tag:yaml.org,2002:int", re.compile(r"(?:[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+)\Z"), list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        re.compile(
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z"
            r"|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
        ),
        list("-+.0123456789"),
    ),
)
# PyYAML's add_implicit_resolver copies the parent's YAML 1.1 table into the class: start from an empty one.
_CoreLoader.yaml_implicit_resolvers = {}
_CORE_PATTERNS = {tag: pattern for tag, pattern, _ in _CORE_SCALARS}
for _tag, _pattern, _first in _CORE_SCALARS:
    _CoreLoader.add_implicit_resolver(_tag, _pattern, _first)


@dataclass(frozen=True)
class Document:
    """A parsed file: its plain values, and the line on which each field stands."""

    file: str
    data: Any
    lines: Mapping[FieldPath, int] = field(default_factory=dict)

    def line(self, path: FieldPath) -> int | None:
        """Return the line (from 1) of the field at ``path``, or of its nearest enclosing field."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


def read_yaml(path: str | Path) -> Document:
    """Read one YAML file.

    Raises
    ------
    InputError
        The file is missing, empty, too large, not UTF-8, not YAML, or uses tags, too many aliases or
        duplicate keys.
    """
    file = Path(path)
    if not file.exists():
        raise InputError("no such file", file=str(file), hint=_sibling_hint(file))
    if not file.is_file():
        raise InputError("not a file", file=str(file))
    size = file.stat().st_size
    if size > MAXIMUM_BYTES:
        raise InputError(
            "the file is too large for a specification",
            file=str(file),
            found=f"{size:,} bytes",
            allowed=f"{MAXIMUM_BYTES:,} bytes",
        )
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("the file is not UTF-8 text", file=str(file), found=str(error.reason)) from None
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror}", file=str(file)) from None
    return parse_yaml(text, file=str(file))


def parse_yaml(text: str, file: str = "<text>") -> Document:
    """Parse YAML text; ``file`` is the name to show in errors. Raises as `read_yaml`."""
    try:
        loader = _CoreLoader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, file) from None
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {error}", file=file) from None
    except InputError as error:
        raise error.located(file=file) from None
    if root is None:
        raise InputError("the file is empty", file=file)
    builder = _Builder(file)
    data = builder.build(root, ())
    if data is None:
        raise InputError("the file is empty", file=file)
    return Document(file, data, builder.lines)


def write_yaml(data: Any) -> str:
    """Write plain values (dict, list, str, int, float, bool, None) as YAML that reads back the same."""
    return yaml.dump(data, Dumper=_CoreDumper, sort_keys=False, allow_unicode=True, width=100)


class _CoreDumper(yaml.SafeDumper):
    """Quotes exactly those strings that the core schema would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_CoreDumper.yaml_implicit_resolvers = _CoreLoader.yaml_implicit_resolvers


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = {float("inf"): ".inf", float("-inf"): "-.inf"}.get(value, ".nan" if value != value else repr(value))
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # YAML 1.1 breaks lines at these too, and PyYAML writes them bare: only double quotes escape them.
    style = '"' if any(character in value for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_CoreDumper.add_representer(float, _represent_float)
_CoreDumper.add_representer(str, _represent_text)


class _Builder:
    """Turns composed nodes into values, counting what aliases multiply."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[FieldPath, int] = {}
        self.count = 0

    def build(self, node: yaml.Node, path: FieldPath) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.count += 1
        if self.count > MAXIMUM_NODES:
            raise InputError(
                "aliases expand to too many values",
                file=self.file,
                line=line,
                allowed=f"{MAXIMUM_NODES:,} values",
            )
        if len(path) > MAXIMUM_DEPTH:
            raise InputError(
                "nested too deeply (an alias inside itself?)",
                file=self.file,
                line=line,
                allowed=f"{MAXIMUM_DEPTH} levels",
            )
        if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        raise self._tag_error(node, path)

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError("a key must be a word", file=self.file, line=line, field=path)
            key = str(key_node.value)
            if key in result:
                raise InputError(
                    "the key stands twice",
                    file=self.file,
                    line=line,
                    field=(*path, key),
                    hint=f"first on line {self.lines[(*path, key)]}",
                )
            self.lines[(*path, key)] = line
            result[key] = self.build(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.ScalarNode, path: FieldPath) -> Any:
        text, tag = str(node.value), node.tag
        if tag == "tag:yaml.org,2002:str":
            return text
        # A tag that is written out may stand before anything: `!!int x`.
        if tag not in _CORE_PATTERNS or not _CORE_PATTERNS[tag].match(text):
            raise self._tag_error(node, path)
        if tag.endswith(":null"):
            return None
        if tag.endswith(":bool"):
            return text.lower() == "true"
        if tag.endswith(":float"):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if len(text) > 32:
            raise InputError("the number is too long", file=self.file, line=node.start_mark.line + 1, field=path)
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))

    def _tag_error(self, node: yaml.Node, path: FieldPath) -> InputError:
        return InputError(
            "YAML tags are not read",
            file=self.file,
            line=node.start_mark.line + 1,
            field=path,
            found=node.tag,
            allowed="plain values",
        )


def _syntax_error(error: yaml.MarkedYAMLError, text: str, file: str) -> InputError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else None
    message = "not valid YAML: " + " ".join(str(part) for part in (error.context, error.problem) if part)
    hint = None
    if line is not None and "\t" in (text.splitlines() or [""])[min(line, len(text.splitlines())) - 1]:
        hint = "the line holds a tab; YAML is indented with spaces"
    return InputError(message, file=file, line=line, hint=hint)


def _sibling_hint(file: Path) -> str | None:
    from unitrain.spec.errors import did_you_mean

    if not file.parent.is_dir():
        return f"the folder '{file.parent}' does not exist"
    return did_you_mean(file.name, sorted(path.name for path in file.parent.iterdir())[:1000])
