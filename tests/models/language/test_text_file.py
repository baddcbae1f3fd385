import random

import pytest

from models.base import DataError
from models.language.readers import text_file
from models.language.readers.index import Scan
from models.language.readers.records import Document
from models.language.readers.text_file import TextFile
from models.language.tokens import bpe
from models.language.tokens.tokenizer import ByteTokenizer

TEXTS = [
    "",
    "\n",
    "one",
    "one\n",
    "\r\n\r\rtwo\r\n",
    "grün\u2028blau\x0brot\x85\nweiß",
    "日本語 🙂\n"
    * 700_000,  # several chunks; each boundary lies inside a character in some encoding
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be+mark"])
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_lines_are_those_of_the_whole_text(tmp_path, text, encoding):
    raw = text.encode(encoding.split("+")[0])
    if encoding == "utf-16-be+mark":
        raw = b"\xfe\xff" + raw
    (tmp_path / "a.txt").write_bytes(raw)
    whole = text.replace("\r\n", "\n").replace("\r", "\n")
    file = TextFile(tmp_path / "a.txt")
    assert list(file.lines()) == whole.split("\n")
    assert "".join(file.chunks()) == whole
    assert file.length(50) == min(50, len(whole))


@pytest.mark.parametrize("offset", range(-3, 4))
def test_a_line_end_between_two_chunks_is_one(tmp_path, offset):
    before = "x" * (text_file.CHUNK + offset)
    (tmp_path / "a.txt").write_bytes(f"{before}\r\nnext\r\rlast".encode())
    assert list(TextFile(tmp_path / "a.txt").lines()) == [before, "next", "", "last"]


@pytest.mark.parametrize("before", [0, 10, text_file.CHUNK - 2, text_file.CHUNK + 5])
@pytest.mark.parametrize(
    ("raw", "encoding", "at", "reason"),
    [
        (b"a\nb\xf6n\n", "UTF-8", 3, "invalid start byte"),
        (b"a\nb\xe6\x97", "UTF-8", 3, "unexpected end of data"),
        (b"a\nb\xe6\x97x", "UTF-8", 3, "invalid continuation byte"),
        (b"a\nb\0\n", "UTF-8", 3, "a zero byte"),
    ],
)
def test_invalid_text_is_reported_with_its_byte(tmp_path, before, raw, encoding, at, reason):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * before + raw)
    with pytest.raises(DataError) as error:
        list(TextFile(path).chunks())
    assert error.value.message == f"'{path}' is not {encoding}: {reason}"
    assert error.value.where == f"{path}:2, byte {before + at}"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"\xff\xfea\0b", "UTF-16: truncated data"),
        (b"\xff\xfe\0\xd8a\0", "UTF-16: illegal UTF-16 surrogate"),
        (b"\xff\xfe\0\0\xff\xff\xff\xff", "UTF-32: code point not in range(0x110000)"),
        (b"\xef\xbb\xbfa\xff", "UTF-8: invalid start byte"),
    ],
)
def test_invalid_text_after_a_byte_order_mark_is_reported_with_its_encoding(
    tmp_path, raw, expected
):
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(DataError) as error:
        list(TextFile(tmp_path / "a.txt").chunks())
    assert error.value.message == f"'{tmp_path / 'a.txt'}' is not {expected}"


def test_bytes_are_counted_from_the_start_of_the_file_after_a_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfab\xff")
    with pytest.raises(DataError) as error:
        list(TextFile(tmp_path / "a.txt").chunks())
    assert error.value.where.endswith(":1, byte 5")


def test_blocks_have_the_number_of_their_first_line(tmp_path):
    (tmp_path / "a.txt").write_text("\n \na\nb\n\n\t\n\nc")
    found = list(TextFile(tmp_path / "a.txt").numbered_blocks())
    assert found == [(3, ["a", "b"]), (8, ["c"])]


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
    return text(0, 22_000)


def fingerprint(pieces):
    scan = Scan()
    for piece in pieces:
        scan.add_document(Document("d", piece))
    scan.close()
    return bytes(scan._keys)


def test_parts_are_the_text_and_of_bounded_size(long_text):
    found = list(text_file.split_text(long_text))
    assert "".join(found) == long_text
    assert len(found) >= 3
    assert all(len(part) < text_file.PART + 1000 for part in found)


@pytest.mark.parametrize("short", ["", "one", "one\n", "\n\ntwo\n", " \n"])
def test_a_short_text_is_one_part(short):
    assert list(text_file.split_text(short)) == [short]
    assert list(text_file.split_pieces(text_file.with_line_ends(short.split("\n")))) == [short]


def test_a_text_without_a_good_cut_is_cut_at_a_line():
    long = "\n".join([" indented"] * 300_000)
    found = list(text_file.split_text(long))
    assert "".join(found) == long and max(map(len, found)) < text_file.LONGEST + 100


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_parts_give_the_tokens_of_the_whole(long_text, kind):
    tokenizer = ByteTokenizer() if kind == "bytes" else bpe.train([long_text[:100_000]], 700)
    pieces = [tokenizer.encode(part).tolist() for part in text_file.split_text(long_text)]
    assert [token for piece in pieces for token in piece] == tokenizer.encode(long_text).tolist()


def test_parts_give_the_fingerprint_of_the_whole(long_text):
    assert fingerprint(text_file.split_text(long_text)) == fingerprint([long_text])
    assert fingerprint(["a ΑΣ", "\nΣb"]) == fingerprint(["a ΑΣ\nΣb"]) != fingerprint(["a ΑΣΣb"])
    assert fingerprint([" ", "\nA"]) == fingerprint(["a"])
