import gzip

import pytest

from models.base import DataError
from models.common import text_file
from models.common.data_files import ALWAYS_UNPACKED
from models.common.text_file import TextFile

TEXTS = [
    "",
    "\n",
    "one",
    "one\n",
    "\r\n\r\rtwo\r\n",
    "grün\u2028blau\x0brot\x85\nweiß",
    "日本語 🙂\n" * 250_000,  # several chunks; each boundary lies inside a character in some encoding
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


def test_a_line_end_between_two_chunks_is_one(tmp_path):
    for offset in (-2, -1, 0, 1):
        before = "x" * (text_file.CHUNK + offset)
        (tmp_path / "a.txt").write_bytes(f"{before}\r\nnext\r\rlast".encode())
        lines = list(TextFile(tmp_path / "a.txt").lines())
        assert lines == [before, "next", "", "last"], offset


def test_a_small_file_that_unpacks_to_far_more_than_real_data_is_an_error(tmp_path):
    path = tmp_path / "a.txt.gz"
    rows = "".join(f"{n},{n * n % 97},0\n" for n in range(5_000))
    path.write_bytes(gzip.compress(rows.encode()) * 1500)  # gzip files may follow one another
    assert sum(map(len, TextFile(path).chunks())) == 1500 * len(rows) > ALWAYS_UNPACKED
    path.write_bytes(gzip.compress(bytes(10**6)) * 80)
    unpacked = 0
    with TextFile(path).open() as file, pytest.raises(DataError) as error:
        while raw := file.read(text_file.CHUNK):
            unpacked += len(raw)
    assert str(path) in error.value.where and unpacked <= ALWAYS_UNPACKED


def error_of(path, raw):
    path.write_bytes(raw)
    with pytest.raises(DataError) as error:
        list(TextFile(path).chunks())
    return error.value.message.removeprefix(f"'{path}' "), error.value.where.removeprefix(str(path))


@pytest.mark.parametrize("before", [0, text_file.CHUNK - 2])
@pytest.mark.parametrize(
    ("raw", "at", "reason"),
    [
        ("ü".encode() + b"\na\xff", 4, "invalid start byte"),
        (b"a\nb\xe6\x97", 3, "unexpected end of data"),
        ("a\nü".encode() + b"\xe6x", 4, "invalid continuation byte"),
    ],
)
def test_invalid_text_is_reported_with_its_byte(tmp_path, before, raw, at, reason):
    assert error_of(tmp_path / "a.txt", b"x" * before + raw) == (
        f"is not UTF-8: {reason}",
        f":2, byte {before + at}",
    )


@pytest.mark.parametrize(
    ("raw", "problem", "at"),
    [
        (b"\xff\xfea\0b", "UTF-16-LE: truncated data", 4),
        (b"\xff\xfe\0\xd8a\0", "UTF-16-LE: illegal UTF-16 surrogate", 2),
        (b"\xff\xfe\0\0\xff\xff\xff\xff", "UTF-32-LE: code point not in range(0x110000)", 4),
        (b"\xef\xbb\xbfab\xff", "UTF-8: invalid start byte", 5),
    ],
)
def test_after_a_byte_order_mark_bytes_count_from_the_start(tmp_path, raw, problem, at):
    expected = (f"is not {problem}", f":1, byte {at}")
    assert error_of(tmp_path / "a.txt", raw) == expected


def test_blocks_have_the_number_of_their_first_line(tmp_path):
    (tmp_path / "a.txt").write_text("\n \na\nb\n\n\t\n\nc")
    found = list(TextFile(tmp_path / "a.txt").numbered_blocks())
    assert found == [(3, ["a", "b"]), (8, ["c"])]
