"""The one source of randomness: streams keyed by seed and purpose, so that nothing depends on call order.

On the host, `stream` gives NumPy's counter-based Philox generator: initial weights, epoch order, augmentation.
Where every framework must draw the *same* bits on its own device, `threefry` computes them with additions,
shifts and exclusive-ors only, which all frameworks have: dropout masks.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return the generator for one purpose, such as ``stream(0, "weights", "conv1.kernel")``."""
    words = np.frombuffer(_digest(seed, purpose)[:16], dtype="<u8")
    return np.random.Generator(np.random.Philox(key=words))


def mask_key(seed: int, *purpose: str | int) -> tuple[int, int]:
    """Return the two 32-bit key words for `threefry`."""
    words = np.frombuffer(_digest(seed, purpose)[16:24], dtype="<u4")
    return int(words[0]), int(words[1])


def _digest(seed: int, purpose: tuple[str | int, ...]) -> bytes:
    text = "/".join([str(seed), *map(str, purpose)])
    return hashlib.blake2b(text.encode(), digest_size=32, person=b"unitrain").digest()


class WordNamespace(Protocol):
    """32-bit words in tensors whose integers are at least 32 bits wide; results are taken modulo 2**32."""

    def add(self, x: Any, y: Any) -> Any:
        """(x + y) mod 2**32."""
        ...

    def xor(self, x: Any, y: Any) -> Any:
        """Exclusive or."""
        ...

    def rotate_left(self, x: Any, bits: int) -> Any:
        """Rotate a 32-bit word to the left."""
        ...


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(words: WordNamespace, key: tuple[int, int], counter: tuple[Any, Any]) -> tuple[Any, Any]:
    """Encrypt a counter with Threefry-2x32, 20 rounds: two 32-bit words for each counter.

    Parameters
    ----------
    words
        The framework's arithmetic on 32-bit words.
    key
        Two words, from `mask_key`.
    counter
        Two words, each a tensor or a number: (element, step).

    Notes
    -----
    Salmon, Moraes, Dror & Shaw 2011, Parallel random numbers: as easy as 1, 2, 3, section 4.2. Passes BigCrush
    from 13 rounds on.
    """
    keys = (key[0], key[1], 0x1BD11BDA ^ key[0] ^ key[1])
    x = words.add(counter[0], keys[0])
    y = words.add(counter[1], keys[1])
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = words.add(x, y)
            y = words.xor(words.rotate_left(y, rotation), x)
        x = words.add(x, keys[(group + 1) % 3])
        y = words.add(y, (keys[(group + 2) % 3] + group + 1) % 2**32)
    return x, y


def keep_threshold(rate: float) -> int:
    """Return the word from which on an element is kept: a dropout of ``rate`` keeps word >= threshold."""
    return min(round(rate * 2**32), 2**32 - 1)


class _NumpyWords:
    """32-bit words as NumPy uint32."""

    def add(self, x: Any, y: Any) -> Any:
        return np.add(x, np.asarray(y, dtype=np.uint32), dtype=np.uint32)

    def xor(self, x: Any, y: Any) -> Any:
        return np.bitwise_xor(x, y)

    def rotate_left(self, x: Any, bits: int) -> Any:
        return (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))


NUMPY_WORDS = _NumpyWords()


def keep_mask(key: tuple[int, int], step: int, size: int, rate: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which of ``size`` elements dropout keeps at ``step``: bool ``[size]``.

    This is the definition that every backend reproduces bit for bit. Let half = ceil(size / 2): counter
    (i, step), i < half, gives the word of element i (first word) and of element half + i (second word).
    """
    half = -(-size // 2)
    counter = np.arange(half, dtype=np.uint32)
    first, second = threefry(NUMPY_WORDS, key, (counter, np.full(half, step % 2**32, dtype=np.uint32)))
    return np.concatenate([first, second])[:size] >= np.uint32(keep_threshold(rate))
