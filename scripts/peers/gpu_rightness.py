"""Whether torch's programs are right on the GPU: the same bits twice, and no step that waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from gpu_section import Found, Options


def repeatability(options: Options) -> Found:
    """Two deterministic runs from the same weights end with the same bits."""
    same = {
        f"{name}, {form}": same_bits(name, options.device, form)
        for name in ("mlp", "lenet", "cnn")
        for form in ("eager", "recorded")
    }
    lines = ["| trained twice, deterministic | weights |", "|---|---|"]
    lines += [f"| {name} | {'the same bits' if equal else '**differ**'} |" for name, equal in same.items()]
    return Found(lines, all(same.values()))


def same_bits(name: str, device: str, form: str | None = None, steps: int = 70, batch: int = 32) -> bool:
    """Train a model twice on ``device``, in a form of execution, and compare all weights and slots bit by bit."""
    from ours import make_data, make_graph, make_trainer

    graph = make_graph(name)
    data = make_data(graph, steps * batch)
    ends = []
    for _ in range(2):
        trainer = make_trainer(graph, *data, "torch", batch, device=device, deterministic=True, execution=form)
        trainer.run()
        slots = trainer.program.slots()
        ends.append({**trainer.program.weights(), **{f"{s} {n}": slots[s][n] for s in slots for n in slots[s]}})
    return all(ends[0][key].tobytes() == ends[1][key].tobytes() for key in ends[0])


def synchronisation(options: Options) -> Found:
    """No step of a block waits for the device: torch raises an error where one does."""
    lines = ["| steps of a block | |", "|---|---|"]
    passed = True
    for name in ("tiny", "mlp", "lenet", "cnn"):
        try:
            steps_under(name, options.device, no_waiting)
            said = "do not wait"
        except RuntimeError as error:
            said, passed = f"**wait**: {' '.join(str(error).split())[:120]}", False
        lines.append(f"| {name} | {said} |")
    return Found(lines, passed)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Let torch raise `RuntimeError` at whatever waits for the GPU."""
    import torch

    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def steps_under(name: str, device: str, guard: Callable[[], AbstractContextManager[None]], steps: int = 8) -> None:
    """Train for an epoch with ``guard`` around the steps of each block, from the first to the last of them.

    The way of the indices to the device and the reading of the statistics lie outside: once a block they may wait.
    """
    from ours import make_data, make_graph, make_trainer

    graph = make_graph(name)
    trainer = make_trainer(graph, *make_data(graph, steps * 16), "torch", 16, device=device)
    trainer.run()  # the first steps choose algorithms and get memory
    program: Any = trainer.program
    step, read = program._step, program._statistics
    with ExitStack() as around:

        def guarded_step(*arguments: Any) -> Any:
            if not inside:
                inside.append(around.enter_context(guard()))
            return step(*arguments)

        def unguarded_read(*arguments: Any) -> Any:
            around.close()
            inside.clear()
            return read(*arguments)

        inside: list[None] = []
        program._step, program._statistics = guarded_step, unguarded_read
        trainer.run()
