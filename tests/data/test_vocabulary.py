"""Vocabularies: any text comes back from its tokens, and what is stored reads the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from unitrain.data.vocabulary import (
    BpeVocabulary,
    ByteVocabulary,
    CharacterVocabulary,
    Vocabulary,
    WordVocabulary,
    learn_vocabulary,
    padded,
)
from unitrain.spec.errors import InputError
from unitrain.spec.vocabulary import VocabularySpec

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune. Ä€😀 "
VOCABULARIES = [
    ByteVocabulary(),
    CharacterVocabulary.learn([TEXT]),
    BpeVocabulary.learn([TEXT * 3, "it is a truth"], 300),
]
IDS = ["bytes", "characters", "bpe"]


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=IDS)
def test_a_text_comes_back(vocabulary):
    tokens = vocabulary.encode(TEXT)
    assert vocabulary.decode(tokens) == TEXT
    assert vocabulary.decode(padded(tokens, len(tokens) + 3)) == TEXT
    assert all(vocabulary.writes(token) for token in tokens)
    assert not vocabulary.writes(0)
    assert not vocabulary.writes(vocabulary.size)
    # Bytes per token, added up, are the text's.
    assert vocabulary.byte_counts()[tokens].sum() == len(TEXT.encode())
    assert len(vocabulary.byte_counts()) == vocabulary.size > max(tokens)
    assert vocabulary.character_counts()[tokens].sum() == len(TEXT)


@pytest.mark.parametrize("vocabulary", [VOCABULARIES[0], VOCABULARIES[2]], ids=["bytes", "bpe"])
@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back(vocabulary, text):
    tokens = vocabulary.encode(text)
    assert vocabulary.decode(tokens) == text
    assert vocabulary.byte_counts()[tokens].sum() == len(text.encode())


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=IDS)
def test_what_is_stored_reads_the_same(vocabulary):
    adapter = TypeAdapter(Vocabulary)
    again = adapter.validate_json(adapter.dump_json(vocabulary))
    assert again == vocabulary
    assert again.encode(TEXT) == vocabulary.encode(TEXT)


def test_bytes_are_shifted_by_one():
    assert ByteVocabulary().encode("aé") == [98, 0xC3 + 1, 0xA9 + 1]
    assert ByteVocabulary().decode([0xC3 + 1]) == "\N{REPLACEMENT CHARACTER}"


def test_characters_are_in_order_and_the_rarest_are_left_out():
    vocabulary = CharacterVocabulary.learn(["bba", "c"], 4)
    assert vocabulary.characters == ("a", "b")
    assert vocabulary.encode("abc") == [2, 3, 1]
    assert vocabulary.decode([2, 1, 0, 3]) == "a\N{REPLACEMENT CHARACTER}b"
    assert not vocabulary.writes(1)


def test_words_and_the_marks_between_them():
    vocabulary = WordVocabulary.learn(["The end. The end, isn't it?", "end"], 5)
    assert vocabulary.words == ("end", "The", ",")
    assert vocabulary.encode("The  end's end.") == [3, 1, 2, 1]
    assert vocabulary.encode(("The", "isn't", ",")) == [3, 1, 4]
    assert vocabulary.decode([3, 2, 4, 1, 0]) == "The end , \N{REPLACEMENT CHARACTER}"
    assert learn_vocabulary(VocabularySpec(type="words"), [("a b", "c")]).encode(("a b",)) == [2]


def test_pairs_are_merged():
    assert len(VOCABULARIES[2].encode(TEXT)) < len(TEXT.encode())
    assert VOCABULARIES[2].size == 300


def test_padding_cuts_and_fills():
    assert padded([5, 6, 7], 2) == [5, 6]
    assert padded([5], 3) == [5, 0, 0]


def test_mistakes_are_told():
    with pytest.raises(InputError, match="too small"):
        BpeVocabulary.learn([TEXT], 100)
    with pytest.raises(ValueError, match="needs a size"):
        VocabularySpec(type="bpe")
    with pytest.raises(ValueError, match="takes no size"):
        VocabularySpec(type="bytes", size=300)
    with pytest.raises(InputError, match="cannot be read"):
        BpeVocabulary(tokenizer="{}").encode("a")
    with pytest.raises(ValueError, match="twice"):
        CharacterVocabulary(characters=("a", "a"))
    assert np.array_equal(ByteVocabulary().byte_counts()[:2], [0, 1])
