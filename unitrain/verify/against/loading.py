"""The user's own model: from what the command line names to something that can be taken apart."""

from __future__ import annotations

import inspect
import os
import re
import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from unitrain.backends import load_backend
from unitrain.backends.foreign import Foreign
from unitrain.spec.errors import InputError, did_you_mean

_ALLOWED = "path.py:make_model or model.onnx"


def load_foreign(text: str) -> Foreign:
    """Load ``path.py:make_model`` or ``model.onnx``.

    The attribute is a ``torch.nn.Module``, a ``keras.Model``, or a function without arguments that returns one. The
    file is run as Python runs a script, its folder being where it imports from; no other file is looked for.

    Raises
    ------
    InputError
        The file or the attribute is not there, it raises, or what it gives is no model.
    """
    path, attribute = _parts(text)
    if not path.is_file():
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError("no such file", file=str(path), hint=did_you_mean(path.name, near))
    if path.suffix == ".onnx":
        load_backend("onnx")
        found: Foreign = import_module("unitrain.backends.onnx.foreign").load(path)
        return found
    # The user's file may import TensorFlow before our backend can quieten it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _beside(path), _told(path):
        names = runpy.run_path(str(path), run_name="__unitrain__")
    if attribute not in names:
        public = [name for name, value in names.items() if not name.startswith("_") and _may_be(value)]
        hint = did_you_mean(attribute, public)
        raise InputError(
            f"the file has no '{attribute}'", file=str(path), allowed=", ".join(public) or "nothing", hint=hint
        )
    model = names[attribute]
    if _framework(model) is None and callable(model):
        with _beside(path), _told(path):
            model = model()
    framework = _framework(model)
    if framework is None:
        raise InputError(
            f"'{attribute}' gives no model",
            file=str(path),
            found=type(model).__name__,
            allowed="a torch.nn.Module or a keras.Model",
        )
    load_backend(framework)
    try:
        wrapped: Foreign = import_module(f"unitrain.backends.{framework}.foreign").wrap(model)
    except InputError as error:
        raise error.located(str(path)) from None
    return wrapped


def _may_be(value: Any) -> bool:
    """Tell whether a name of the user's file may be what was meant: a function or an object, no module or class."""
    return _framework(value) is not None or inspect.isfunction(value)


def _parts(text: str) -> tuple[Path, str]:
    if text.endswith(".onnx"):
        return Path(text), ""
    name, colon, attribute = text.rpartition(":")
    if not colon or not name.endswith(".py") or not attribute.isidentifier():
        raise InputError("this names no model", field=("against",), found=text, allowed=_ALLOWED)
    return Path(name), attribute


def source_file(text: str) -> Path | None:
    """Return the Python file that ``--against`` names, if it names one."""
    path, attribute = _parts(text)
    return path if attribute else None


def _framework(model: Any) -> str | None:
    """Tell whose model an object is by its classes' names, without importing any framework."""
    if isinstance(model, type):
        return None
    for kind in type(model).__mro__:
        root = kind.__module__.partition(".")[0]
        if root == "torch" and kind.__name__ == "Module":
            return "torch"
        if root == "keras" and kind.__name__ == "Model":
            return "keras"
    return None


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Let the file import what lies beside it."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn whatever the user's code raises into one line, with the line of the user's file."""
    try:
        yield
    except InputError:
        raise
    except SystemExit:
        raise InputError("the file ends the program", file=str(path)) from None
    except Exception as error:  # the user's own code may raise anything
        raise user_error(error, path) from None


def user_error(error: BaseException, path: Path | None = None, message: str = "") -> InputError:
    """Tell of an error in the user's code, at the innermost line of it in ``path``."""
    line = None
    if isinstance(error, SyntaxError):
        line = error.lineno
    for frame in traceback.extract_tb(error.__traceback__):
        if path is not None and Path(frame.filename).resolve() == path.resolve():
            line = frame.lineno
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:300]
    found = f"{type(error).__name__}: {text}" if text else type(error).__name__
    what = f"{message}: {found}" if message else found
    return InputError(what, file=None if path is None else str(path), line=line)
