"""Out of memory, on any backend, answered with the batch size to try."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from unitrain.spec.errors import InputError
from unitrain.spec.training import TrainingSpec

# How frameworks say it: NumPy and Python; torch on CUDA and MPS; TensorFlow. None of them is imported for that.
_NAMES = frozenset({"MemoryError", "OutOfMemoryError", "ResourceExhaustedError"})
# torch on the CPU raises a plain RuntimeError.
_WORDS = ("can't allocate memory", "out of memory", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that there is no memory."""
    if any(kind.__name__ in _NAMES for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


@contextmanager
def answered(spec: TrainingSpec) -> Iterator[None]:
    """Turn "out of memory" in a training step into the batch size to try; other errors pass.

    Half of the batch with twice as many batches to an update takes the same updates, but for layers that look at a
    whole batch, such as batch norm.

    Raises
    ------
    InputError
        A step found no memory.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        half = spec.batch_size // 2
        raise InputError(
            "not enough memory for a training step",
            found=f"batch_size {spec.batch_size}",
            hint=f"--set training.batch_size={half} --set training.accumulate={2 * spec.accumulate} takes the same "
            "updates with half of the memory"
            if half
            else "a batch of one sample does not fit: take a smaller model or input, or another device",
        ) from None


@contextmanager
def evaluation_answered(spec: TrainingSpec) -> Iterator[None]:
    """Do the same for evaluation, whose chunks have a size of their own. Raises `InputError`."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = spec.evaluation_batch_size
        raise InputError(
            "not enough memory to evaluate",
            found=f"evaluation_batch_size {size}",
            hint=f"--set training.evaluation_batch_size={size // 2} gives the same values"
            if size > 1
            else "one sample does not fit: take a smaller model or input, or another device",
        ) from None
