"""Text of a file in chunks and lines, and what is not text."""

import pytest

from models.base import DataError
from models.common import text_file
from models.common.text_file import TextFile

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
        (b"a\nb\xff", "UTF-8", 3, "invalid start byte"),
        (b"a\nb\xe6\x97", "UTF-8", 3, "unexpected end of data"),
        ("a\nü".encode() + b"\xe6x", "UTF-8", 4, "invalid continuation byte"),
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
        (b"\xff\xfea\0b", "UTF-16LE: truncated data"),
        (b"\xff\xfe\0\xd8a\0", "UTF-16LE: illegal UTF-16 surrogate"),
        (b"\xff\xfe\0\0\xff\xff\xff\xff", "UTF-32LE: code point not in range(0x110000)"),
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
