"""The command ``unitrain``: its verbs, and the one place where errors turn into messages and exit codes.

Exit codes: 0 done; 1 a check has failed or a run did not end well; 2 the input or the command line is wrong;
70 a bug of ours; 130 stopped with Ctrl-C; 143 with SIGTERM.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from unitrain import __version__
from unitrain.cli.lazy import HELP_OPTIONS, LazyGroup, Verb
from unitrain.spec.errors import InputError

FAILED, WRONG_INPUT, OUR_BUG, INTERRUPTED = 1, 2, 70, 130

# pydantic looks through all installed packages for plugins of its own, which takes longer than reading a recipe.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")

# What typer raises when the command line is wrong: a class of click, or of the click inside newer typer.
_UsageError: Any = typer.BadParameter.__base__


def _verb(name: str, help_line: str) -> Verb:
    return Verb(f"unitrain.cli.{name}", name, help_line)


class Verbs(LazyGroup):
    """What can be done."""

    verbs = {
        "fit": _verb("fit", "Train a recipe and leave a run folder."),
        "evaluate": _verb("evaluate", "Measure a trained run."),
        "predict": _verb("predict", "Apply a trained run to new data."),
        "runs": _verb("runs", "List runs, compare two, remove some."),
        "generate": _verb("generate", "Let a trained language model go on with a text."),
        "export": _verb("export", "Write a run or model for ONNX, torch, Keras or TensorFlow."),
        "prune": _verb("prune", "Make the model of a run smaller: channels, weights, batch norm."),
        "check": _verb("check", "Check models and recipes without training."),
        "tune": _verb("tune", "Time the forms in which a backend can train a recipe."),
        "verify": _verb("verify", "Show that all backends compute the same, or what differs."),
        "bench": _verb("bench", "Time the backends: operations, gradients, training, inference."),
        "study": _verb("study", "Measure quantised and pruned variants of a model side by side."),
        "summary": _verb("summary", "Show the layers of a model: shapes, parameters, cost."),
        "schema": _verb("schema", "Write the JSON Schema with which editors complete and check."),
        "doctor": _verb("doctor", "Show what is installed: versions, devices, threads, data sets."),
    }


app = typer.Typer(
    cls=Verbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=HELP_OPTIONS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unitrain {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def overview(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """One declarative model, trained the same on NumPy, Keras (TensorFlow) and torch.nn.

    Examples:

      unitrain fit recipes/digits-cnn.yaml

      unitrain summary models/resnet20.yaml

      unitrain check recipes/*.yaml

    `unitrain COMMAND --help` shows the options of a command and examples.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; ``arguments`` are those of the process by default."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(given, prog_name="unitrain", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`| head`). What is still buffered must not be written when Python ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except InputError as error:
        _fail(str(error), WRONG_INPUT)
    except _UsageError as error:
        error.show()
        sys.exit(WRONG_INPUT)
    except OSError as error:
        # A full disk, a folder that may not be written: the message is the system's, the place is the user's.
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}", WRONG_INPUT)
    except MemoryError as error:
        _fail(f"not enough memory: {error or 'no details'}\n  hint:    a smaller batch or model needs less", FAILED)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except Exception as error:
        _fail(_apology(error, given), OUR_BUG)
    sys.exit(code if isinstance(code, int) else 0)


def command() -> NoReturn:
    """Run the command line as a process of its own.

    A command that has done its work ends the process as Python does, threads and exit handlers first, but frees no
    memory before: a framework's million objects take a tenth of a second, one by one, and the system takes it all back.
    """
    try:
        main()
    except SystemExit as ending:
        if ending.code != 0:
            raise
        # Private to Python's own end, and the same in all versions that unitrain runs on.
        threading._shutdown()  # type: ignore[attr-defined]  # as above
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get("UNITRAIN_TRACEBACK") == "1":
        import traceback

        traceback.print_exc()
    print(message, file=sys.stderr)
    sys.exit(code)


def _apology(error: Exception, arguments: Sequence[str]) -> str:
    import shlex

    what = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        f"unitrain {__version__} has a bug: {what[:500]}\n"
        f"  command: unitrain {shlex.join(arguments)}\n"
        "  please report it with the files that lead to it, the output of `unitrain doctor`,\n"
        "  and what UNITRAIN_TRACEBACK=1 shows when you run the command again"
    )
