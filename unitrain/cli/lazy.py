"""A group of commands that knows each command's module and imports it only when that command is called."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import typer
import typer.main
from typer.core import TyperGroup

from unitrain.spec.errors import unknown_name

if TYPE_CHECKING:
    # Newer typer brings a click of its own and older typer uses the package: these types have no one home.
    from typing import TypeAlias

    Context: TypeAlias = Any
    Command: TypeAlias = Any
    Formatter: TypeAlias = Any


class Verb(NamedTuple):
    """One command: the function called ``function`` in ``module``, and its line in the overview."""

    module: str
    function: str
    help: str


class LazyGroup(TyperGroup):
    """Commands from a table; subclasses fill `verbs`."""

    verbs: ClassVar[dict[str, Verb]] = {}

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self.verbs)

    def get_command(self, ctx: Context, cmd_name: str) -> Command:
        """Import one command. Raises `InputError` with the nearest spelling when the name is unknown."""
        if cmd_name not in self.verbs:
            raise unknown_name("command", cmd_name, self.verbs)
        verb = self.verbs[cmd_name]
        single = typer.Typer(rich_markup_mode=None, add_completion=False, context_settings=HELP_OPTIONS)
        single.command(cmd_name)(getattr(import_module(verb.module), verb.function))
        return typer.main.get_command(single)

    def format_commands(self, ctx: Context, formatter: Formatter) -> None:
        """Write the overview from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in self.verbs.items()])


HELP_OPTIONS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
