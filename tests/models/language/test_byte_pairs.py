"""tiktoken gives the tokens of the tokenizers library; needs the package tiktoken."""

import json
import random

import numpy as np
import pytest
import tokenizers

from gearshift.models.language import subword_tokenizers
from gearshift.models.language.byte_pairs import byte_pairs
from gearshift.models.language.commands import read_conversations
from gearshift.models.language.embedded import read_documents

pytest.importorskip("tiktoken", reason="the package tiktoken is not installed")


def texts():
    rng = random.Random(0)
    blocks = (32, 0x300), (0x300, 0x3000), (0x3000, 0xD800), (0x1F000, 0x1FFFF)
    letters = [chr(rng.randrange(*rng.choice(blocks))) for _ in range(3_000)]
    spaces = [rng.choice("  \n\t\r\x85\xa0\u3000\u200b") for _ in range(800)]
    mixed = letters + spaces
    rng.shuffle(mixed)
    yield "".join(mixed)
    yield "".join(rng.choice("aaabb c'st\n") for _ in range(3_000))
    yield from ("", " ", "\n\n  x", "it's we'll", " " * 2_000, "x" * 2_000)
    yield "a <command>ls</command> <|end|> b"
    for record in read_documents()[::60]:
        yield record.text
    for record in read_conversations()[::40]:
        yield record.text


@pytest.fixture(scope="module")
def trained():
    documents = [record.text for record in read_documents()[::60]]
    return subword_tokenizers.train([*documents, *texts()], 1024)


def test_tokens_equal_those_of_the_tokenizers_library(trained):
    fast = byte_pairs(trained.inner)
    for text in texts():
        expected = trained.inner.encode(text, add_special_tokens=False).ids
        assert fast.encode(text) == expected, text[:60]


def test_a_batch_and_a_single_text_have_equal_tokens(trained):
    several = list(texts())[:9]
    for text, tokens in zip(several, trained.encode_batch(several), strict=True):
        np.testing.assert_array_equal(trained.encode(text), tokens)


def changed(trained, change):
    state = json.loads(trained.inner.to_str())
    change(state)
    return tokenizers.Tokenizer.from_str(json.dumps(state))


def split_otherwise(state):
    """Give the last token that has one another pair, which gives the same text."""
    vocabulary, merges = state["model"]["vocab"], state["model"]["merges"]
    for number in reversed(range(len(merges))):
        word = "".join(merges[number])
        for place in range(1, len(word)):
            pair = [word[:place], word[place:]]
            if pair != merges[number] and all(half in vocabulary for half in pair):
                merges[number] = pair
                return
    raise AssertionError("no token has another pair")


CHANGES = {
    "another pair": split_otherwise,
    "normalizer": lambda state: state.update(normalizer={"type": "Lowercase"}),
    "prefix space": lambda state: state["pre_tokenizer"].update(add_prefix_space=True),
    "other words": lambda state: state["pre_tokenizer"].update(use_regex=False),
    "no words": lambda state: state.update(pre_tokenizer=None),
    "order of merges": lambda state: state["model"]["merges"].reverse(),
    "a merge less": lambda state: state["model"]["merges"].pop(),
    "whole words": lambda state: state["model"].update(ignore_merges=True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_tokenizer_that_splits_otherwise_keeps_its_library(trained, change):
    assert byte_pairs(trained.inner) is not None
    assert byte_pairs(changed(trained, change)) is None
