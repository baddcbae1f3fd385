"""A damaged table, JSON or text gives data or one error, never another exception."""

import io
import json
import re
import zipfile
from functools import cache
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from models.abr.readers.files import read_responses
from models.language.readers.corpus import read_corpus
from tests.edges.damage import damaged, error_of, fuzz

ROWS = [{"prompt": f"größe {i}, \u2028 a", "completion": f"answer {i}"} for i in range(12)]
CHATS = [
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
] * 4
TABLE = "prompt;completion\n" + "".join(f'"{r["prompt"]}";{r["completion"]}\n' for r in ROWS)
POINTS = [str(point) for point in range(1, 201)]


@cache
def sheet():
    book = Workbook()
    book.active.append(["patient_id", "intensity", "hear_loss", *POINTS])
    for patient in range(3):
        book.active.append([f"p{patient}", 80, patient, *[0.5 * patient] * 200])
    content, fixed = io.BytesIO(), io.BytesIO()
    book.save(content)
    # openpyxl stores the time: the same bytes each time, so that an example can be repeated.
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(fixed, "w") as target:
        for name in source.namelist():
            data = re.sub(rb"\d{4}-\d\d-\d\dT[\d:]+Z", b"2026-01-01T00:00:00Z", source.read(name))
            target.writestr(zipfile.ZipInfo(name), data)
    return fixed.getvalue()


@cache
def parquet():
    import pyarrow
    import pyarrow.parquet

    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), content)
    return content.getvalue()


TEXTS = {
    "a.csv": TABLE.encode(),
    "b.csv": TABLE.replace("\u2028", "").encode("cp1252"),
    "a.tsv": TABLE.replace(";", "\t").encode("utf-16-le"),
    "a.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS + CHATS).encode(),
    "a.json": json.dumps(ROWS + CHATS, indent=1).encode(),
    "a.txt": "User: größe\nAssistant: a\n\n".encode() * 20,
    "b.txt": b"words and more words\n\n" * 50,
}


@pytest.mark.parametrize("name", TEXTS)
@settings(fuzz, max_examples=60)
@given(data=st.data())
def test_a_damaged_text_gives_data_or_one_error(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data.draw(damaged(TEXTS[name])))

    def read(on_bad):
        corpus = read_corpus(path, None, on_bad)
        list(corpus.documents() if corpus.is_text else corpus.exchanges())

    if error_of(lambda: read("stop")):  # what is read under `stop` is read under `skip` too
        error_of(lambda: read("skip"))


def test_a_text_without_damage_gives_data(tmp_path):
    for name, content in TEXTS.items():
        (tmp_path / name).write_bytes(content)
        assert error_of(lambda name=name: read_corpus(tmp_path / name, None, "stop")) is None


@settings(fuzz, max_examples=20)
@given(data=st.data())
def test_a_damaged_workbook_gives_data_or_one_error(tmp_path, data):
    path = tmp_path / "a.xlsx"
    path.write_bytes(data.draw(damaged(sheet())))
    error_of(lambda: read_responses(str(path), "skip", None))


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
@settings(fuzz, max_examples=20)
@given(data=st.data())
def test_a_damaged_parquet_file_gives_data_or_one_error(tmp_path, data):
    path = tmp_path / "a.parquet"
    path.write_bytes(data.draw(damaged(parquet())))
    error_of(lambda: read_corpus(path, None, "skip"))
