import random

import pytest

from models.language import bpe
from models.language.readers import plain_text
from models.language.readers.index import Scan
from models.language.readers.records import Document
from models.language.tokenizer import ByteTokenizer

WORDS = [
    *("alpha", "Beta,", "ünï", "ΑΣ", "日本", "<file>", "it's", "42", "<|end|>", "tab\tbed"),
    *("  indented", "\t", "trailing  ", "", " ", "\u3000", "\xa0x", "'s", "\x1c"),
]


def text(seed, lines):
    rng = random.Random(seed)
    return "\n".join(
        "".join(rng.choice(WORDS) + rng.choice([" ", " ", ""]) for _ in range(rng.randrange(12)))
        for _ in range(lines)
    )


@pytest.fixture(scope="module")
def long_text():
    return text(0, 11_000)


def fingerprint(pieces):
    scan = Scan()
    for piece in pieces:
        scan.add_document(Document("d", piece))
    scan.close()
    return bytes(scan._keys)


def test_parts_are_the_text_and_of_bounded_size(long_text):
    found = list(plain_text.split_text(long_text))
    assert "".join(found) == long_text
    assert len(found) >= 2
    assert all(len(part) < plain_text.PART + 1000 for part in found)


@pytest.mark.parametrize("short", ["", "one", "one\n", "\n\ntwo\n", " \n"])
def test_a_short_text_is_one_part(short):
    assert list(plain_text.split_text(short)) == [short]
    assert list(plain_text.split_pieces(plain_text.with_line_ends(short.split("\n")))) == [short]


def test_a_text_without_a_good_cut_is_cut_at_a_line():
    long = "\n".join([" indented"] * 300_000)
    found = list(plain_text.split_text(long))
    assert "".join(found) == long and max(map(len, found)) < plain_text.LONGEST + 100


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_parts_give_the_tokens_of_the_whole(long_text, kind):
    tokenizer = ByteTokenizer() if kind == "bytes" else bpe.train([long_text[:20_000]], 500)
    pieces = [tokenizer.encode(part).tolist() for part in plain_text.split_text(long_text)]
    assert [token for piece in pieces for token in piece] == tokenizer.encode(long_text).tolist()


def test_parts_give_the_fingerprint_of_the_whole(long_text):
    assert fingerprint(plain_text.split_text(long_text)) == fingerprint([long_text])
    assert fingerprint(["a ΑΣ", "\nΣb"]) == fingerprint(["a ΑΣ\nΣb"]) != fingerprint(["a ΑΣΣb"])
    assert fingerprint([" ", "\nA"]) == fingerprint(["a"])
