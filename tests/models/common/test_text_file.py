import gzip

import pytest

from gearshift.models.base import DataError
from gearshift.models.common import text_file
from gearshift.models.common.data_files import ALWAYS_UNPACKED
from gearshift.models.common.text_file import TextFile

TEXTS = [
    "",
    "\n",
    "one",
    "one\n",
    "\r\n\r\rtwo\r\n",
    "grün\u2028blau\x0brot\x85\nweiß",
    "日本語 🙂\n"
    * 250_000,  # several chunks; each boundary lies inside a character in some encoding
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
    return error.value.message.removeprefix(f"'{path}' is not "), error.value.where


@pytest.mark.parametrize("before", [0, text_file.CHUNK - 2])
@pytest.mark.parametrize(
    "raw",
    ["ü".encode() + b"\na\xff", "a\nü".encode() + b"\xe6\x97", "a\nü".encode() + b"\xe6x"],
)
def test_invalid_text_is_reported_with_its_line(tmp_path, before, raw):
    problem, where = error_of(tmp_path / "a.txt", b"x" * before + raw)
    assert problem.startswith("UTF-8: ") and where == f"{tmp_path / 'a.txt'}:2"


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        *((b"\xff\xfea\0b", "UTF-16-LE"), (b"\xff\xfe\0\xd8a\0", "UTF-16-LE")),
        *((b"\xff\xfe\0\0\xff\xff\xff\xff", "UTF-32-LE"), (b"\xef\xbb\xbfab\xff", "UTF-8")),
    ],
)
def test_after_a_byte_order_mark_no_other_encoding_is_assumed(tmp_path, raw, encoding):
    assert error_of(tmp_path / "a.txt", raw)[0].startswith(f"{encoding}: ")


def text_and_note(path, raw):
    path.write_bytes(raw)
    file = TextFile(path)
    text = "".join(file.chunks())
    return text, file.note.partition(",")[0]


def test_a_few_accents_of_western_europe_are_read_wherever_they_first_occur(tmp_path):
    path = tmp_path / "a.txt"
    ascii_lines = "id;value\n" * 200_000  # more than a chunk
    for before in ("", ascii_lines[:900], ascii_lines):
        for after in ("", ascii_lines[:900]):
            text = f"{before}le café, naïf\n{after}"
            assert text_and_note(path, text.encode("cp1252")) == (text, "cp1252")
            assert text_and_note(path, text.encode()) == (text, "")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_a_character_on_the_border_of_two_chunks_decides_the_encoding(tmp_path, encoding):
    for size in range(text_file.CHUNK - 3, text_file.CHUNK + 2):
        text = ("voici une phrase " * size)[:size] + "é du café\n"
        assert text_and_note(tmp_path / "a.txt", text.encode(encoding))[0] == text


def test_another_alphabet_is_found_after_ascii(tmp_path):
    text = "id;value\n" * 200_000 + "Привет, как дела? Сегодня хорошая погода.\n" * 20
    assert text_and_note(tmp_path / "a.txt", text.encode("cp1251")) == (text, "cp1251")
