"""The sides of a comparison: the backends that take part, each on a device, with equal threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unitrain.backends import BACKENDS, load_backend, resolve_device
from unitrain.backends.contract import Backend
from unitrain.backends.toolkit import Toolkit, load_toolkit
from unitrain.spec.errors import InputError, unknown_name

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Side:
    """A backend on a device."""

    backend: Backend
    toolkit: Toolkit
    device: str

    @property
    def name(self) -> str:
        """Name of the backend."""
        return self.backend.name

    def wait(self) -> None:
        """Return when all that was started is done."""
        self.toolkit.wait(self.device)


@dataclass(frozen=True)
class Sides:
    """All sides, by device, with what is to be said about them.

    Parameters
    ----------
    by_device
        Device as asked for to the sides on it; the first is the baseline.
    threads
        Backend to the threads that it says it uses.
    notes
        What was left out.
    """

    by_device: Mapping[str, Sequence[Side]]
    threads: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the backends that take part."""
        return tuple(self.threads)


def choose_sides(
    named: Sequence[str], devices: Sequence[str], threads: int, tell: Tell = lambda message: None
) -> Sides:
    """Import backends and find their devices.

    Parameters
    ----------
    named
        Backends; all that are installed where none is named.
    devices
        ``cpu``, ``cuda``, ``cuda:1``, ``mps``. A backend without one takes no part there.
    threads
        For all alike.

    Raises
    ------
    InputError
        A backend is unknown, or named and not installed; no backend finds a device.
    """
    notes: list[str] = []
    toolkits: dict[str, tuple[Backend, Toolkit]] = {}
    for name in named:
        if name not in BACKENDS:
            raise unknown_name("backend", name, BACKENDS)
    for name in named or BACKENDS:
        tell(f"importing {name}")
        try:
            toolkits[name] = load_backend(name), load_toolkit(name)
        except InputError as error:
            problem = error.problems[0]
            notes.append("; ".join(filter(None, (f"{name} is left out: {problem.message}", problem.hint))))
    if not toolkits:
        raise InputError("no backend that was named is installed", found=", ".join(named), hint="\n".join(notes))
    used = {name: toolkit.prepare(threads) for name, (_, toolkit) in toolkits.items()}
    notes += [
        f"{name} uses {count} threads, and not {threads}: it had begun to compute in this process"
        for name, count in used.items()
        if count != threads
    ]
    by_device = {device: _on(device, toolkits) for device in devices}
    return Sides(by_device, used, tuple(notes))


def _on(device: str, toolkits: Mapping[str, tuple[Backend, Toolkit]]) -> list[Side]:
    sides = []
    for backend, toolkit in toolkits.values():
        try:
            sides.append(Side(backend, toolkit, resolve_device(backend, device)))
        except InputError:
            continue
    if not sides:
        present = {name: backend.devices() for name, (backend, _) in toolkits.items()}
        raise InputError(
            f"no backend finds a device '{device}'",
            found="; ".join(f"{name}: {', '.join(found)}" for name, found in present.items()),
            allowed=", ".join(sorted({found for devices in present.values() for found in devices})),
            hint="run `unitrain doctor` to see every backend's devices",
        )
    return sides
