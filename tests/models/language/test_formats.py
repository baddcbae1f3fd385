import gzip
import json

import pytest

from gearshift.models.language.formats import FORMATS, recognize

CSV, JSONL, JSON, PARQUET, TEXT = FORMATS


def line(**row):
    return json.dumps(row) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.csv", "prompt,response\na,b\n", CSV),
        ("a.tsv", "Query\tReply\na\tb\n", CSV),
        ("a.jsonl", line(prompt="a", response="b"), JSONL),
        ("a.jsonl", line(id="1", en="one", zh="一"), JSONL),
        ("a.json", line(train=["a"]), JSON),
        ("a.parquet", b"PAR1...", PARQUET),
        ("a.jsonl.gz", gzip.compress(line(text="x").encode(), mtime=0), JSONL),
        ("a.txt", "some prose\n", TEXT),
        ("a.txt", "1.0\t2.5\n3.25\t-7.5\n", None),
        ("a.txt", "", None),
        ("a.dat", b"\x89HDF\r\n\x1a\n\0\0", None),
        ("a.txt", "grün\n".encode("utf-16"), TEXT),
    ],
)
def test_rows_are_recognized_by_name_and_text_by_its_first_bytes(tmp_path, name, content, form):
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(raw)
    assert recognize(tmp_path / name) == form


def test_a_folder_is_what_most_of_its_files_are(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x").write_text("hidden")
    (tmp_path / "a" / "pairs.csv").write_text("input,output\na,b\n")
    (tmp_path / "config.json").write_text('{"prompt": "no array"}')
    assert recognize(tmp_path) == CSV
    (tmp_path / "README.md").write_text("what this is")
    assert recognize(tmp_path) == TEXT
    for i in range(3):
        (tmp_path / f"{i}.mat").write_bytes(b"\0")
    assert recognize(tmp_path) is None
