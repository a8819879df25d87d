#!/usr/bin/env python3
"""What a recipe's held-out text costs without a neural network, in bits a character; and other simple models of text.

    .venv/bin/python scripts/text_baselines.py recipes/austen-gpt.yaml [--set data.source.folder=F]

A compressor is asked how much longer its file becomes when the test part follows the training part. The n-gram model is
of characters, interpolated by Witten and Bell's method C (1991, The zero-frequency problem), its order chosen on the
validation part. Takes about a minute.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import lzma
import math
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
from sklearn.naive_bayes import MultinomialNB

from unitrain.data.language import FEATURE, divide_texts, is_language
from unitrain.data.sources import read_source
from unitrain.train.recipe import LoadedRecipe, load_recipe
from unitrain.train.session import prepare_data
from unitrain.weights.random import stream

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda text: gzip.compress(text, 9),
    "bzip2": lambda text: bz2.compress(text, 9),
    "xz": lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME),
}
ORDERS = range(1, 9)


def main() -> None:
    """Print the figures, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], help="as for unitrain fit")
    options = parser.parse_args()
    print(json.dumps(baselines(load_recipe(options.recipe, options.set)), indent=2))


def text_baseline(loaded: LoadedRecipe) -> float:
    """Return the figure of the simplest model for a recipe with text: bits a character, or accuracy, of the test part.

    For classes of texts naive Bayes on the same tokens, for tags the most frequent one of each word.
    """
    if is_language(loaded.recipe.data.source):
        return min(baselines(loaded).values())
    data = prepare_data(loaded)
    assert data.test is not None
    rows = loaded.graph.lookups[0].rows
    (tokens,), (target,) = data.train.inputs.values(), data.train.targets.values()
    (unseen,), (wanted,) = data.test.inputs.values(), data.test.targets.values()
    if target.ndim == 1:
        train, test = (
            np.stack([np.bincount(text, minlength=rows)[1:] for text in texts]) for texts in (tokens, unseen)
        )
        return float(MultinomialNB().fit(train, target).score(test, wanted))
    counts = np.zeros((rows, int(target.max()) + 1))
    np.add.at(counts, (tokens[target >= 0], target[target >= 0]), 1)
    return float((counts.argmax(axis=1)[unseen] == wanted)[wanted >= 0].mean())


def baselines(loaded: LoadedRecipe) -> dict[str, float]:
    """Return the bits a character of the test part, by method."""
    parts, _ = read_source(loaded.recipe.data, loaded.folder)
    parts = divide_texts(parts, loaded.recipe.data, stream(loaded.recipe.seed, "data", "split"))
    train, validation, test = ("\0".join(parts[part].features[FEATURE]) for part in ("train", "validation", "test"))
    found = {name: compressed_bits(compress, train, test) for name, compress in COMPRESSORS.items()}
    counts = count_ngrams(train, max(ORDERS))
    order = min(ORDERS, key=lambda order: ngram_bits(counts, validation, order))
    return {**found, f"{order}-gram": ngram_bits(counts, test, order)}


def compressed_bits(compress: Callable[[bytes], bytes], train: str, test: str) -> float:
    """Return how many bits a character of ``test`` adds to what ``train`` is compressed to."""
    return 8.0 * (len(compress((train + test).encode())) - len(compress(train.encode()))) / len(test)


Counts = list[tuple[Counter[str], dict[str, int], Counter[str]]]


def count_ngrams(text: str, order: int) -> Counts:
    """Return for contexts of 0 .. order - 1 characters: counts of n-grams, kinds of followers, counts of contexts."""
    found: Counts = []
    for length in range(order):
        grams = Counter(text[place : place + length + 1] for place in range(len(text) - length))
        kinds: dict[str, int] = defaultdict(int)
        contexts: Counter[str] = Counter()
        for gram, count in grams.items():
            kinds[gram[:-1]] += 1
            contexts[gram[:-1]] += count
        found.append((grams, kinds, contexts))
    return found


def ngram_bits(counts: Counts, text: str, order: int) -> float:
    """Return the cross-entropy in bits a character: p = (n(hc) + t(h) p') / (n(h) + t(h)), p' that of a shorter h."""
    alphabet = len(counts[0][0]) + 1  # and one for all others
    total = 0.0
    for place in range(len(text)):
        p = 1.0 / alphabet
        for length in range(min(order, place + 1)):
            grams, kinds, contexts = counts[length]
            context = text[place - length : place]
            seen = contexts.get(context, 0)
            if not seen:
                break
            p = (grams.get(context + text[place], 0) + kinds[context] * p) / (seen + kinds[context])
        total -= math.log2(p)
    return total / len(text)


if __name__ == "__main__":
    main()
