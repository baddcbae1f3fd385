import random

import numpy as np
import pytest
from tokenizers import normalizers, pre_tokenizers

from models.language import bpe
from models.language.bpe import WordTokens, can_cut

CORPUS = ["the quick brown fox's jumps over the lazy dog " * 5, "def main(): return main  # 12"] * 3


@pytest.fixture(scope="module")
def trained():
    return bpe.train(CORPUS, 400)


def words_of(tokenizer, text):
    return WordTokens(tokenizer.inner, np.uint16).encode_batch([text])[0]


def library(tokenizer, text):
    return tokenizer.inner.encode(text, add_special_tokens=False).ids


def test_the_tokens_are_those_of_the_library(trained):
    for text in (
        "",
        "it's don't 'tis '' 's's 'rest \" 'll'll",
        "  two  spaces\n\n\tand tabs \r\n end ",
        "x=1.5e-3; y[22]!=(a)->b  ",
        "<command>ls</command> <system>be brief</system>\n",
        "written out: <|end|> <|pad|> <|reserved_1|>",
        "naïve Übergröße Ελλάδα Привет мир नमस्ते 日本語テキスト ١٢٣ ½ ²",
        "emoji \U0001f600\U0001f468\u200d\U0001f469 and 👍🏽",
        "no-break\xa0space\u2028line\u3000wide\x85next",
        "e\u0301 combining \u0300\u0301",
    ):
        found = words_of(trained, text)
        assert found is not None and found.tolist() == library(trained, text), text


def test_random_texts_of_all_of_unicode_have_the_same_tokens(trained):
    draw, cut = random.Random(0), 0
    ranges = ((0, 0x250), (0, 0x3000), (0x4E00, 0x9FFF), (0x1F000, 0x1FB00), (0, 0x110000))
    for _ in range(500):
        numbers = (draw.randrange(*draw.choice(ranges)) for _ in range(draw.randrange(1, 12)))
        text = " ".join(chr(n) * 2 for n in numbers if not 0xD800 <= n < 0xE000)
        assert trained.encode(text).tolist() == library(trained, text)
        cut += words_of(trained, text) is not None
    assert 50 < cut < 500  # both ways were taken


@pytest.mark.parametrize("text", ["\x1c", "\u1c90", "\U0001d400"])
def test_characters_of_uncertain_class_are_left_to_the_library(trained, text):
    assert words_of(trained, text) is None
    assert trained.encode(text).tolist() == library(trained, text)


def test_a_full_table_of_words_starts_again(trained, monkeypatch):
    monkeypatch.setattr(bpe, "_MAX_WORDS", 4)
    found = WordTokens(trained.inner, np.uint16)
    for text in ("a b c", "d e f", "a b c", "one two three four five six"):
        assert found.encode_batch([text])[0].tolist() == library(trained, text)


def test_other_tokenizers_are_not_cut_here():
    def changed(**parts):
        inner = bpe.train(CORPUS, 400).inner
        for name, part in parts.items():
            setattr(inner, name, part)
        return inner

    assert can_cut(changed())
    assert not can_cut(changed(normalizer=normalizers.NFC()))
    assert not can_cut(changed(pre_tokenizer=pre_tokenizers.Whitespace()))
    assert not can_cut(changed(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)))
