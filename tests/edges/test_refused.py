"""A file that cannot be read as it is gives one error with its place: a table of file, reader, where."""

import gzip
import json
from functools import partial

import numpy as np
import pytest

from gearshift.models.common.data_reports import BadRecords
from gearshift.models.common.table import Table
from gearshift.models.common.text_file import TextFile
from gearshift.models.eeg_text.config import Data
from gearshift.models.eeg_text.readers import files
from gearshift.models.event_seg.formats import recognize
from gearshift.models.event_seg.readers.files import open_recording
from gearshift.models.language.readers.file_corpus import read_corpus
from tests.edges.edf_files import Signal, write_edf
from tests.models.errors import error_of
from tests.models.event_seg.writers import random_events, write_dsec

RATE = 250


def table(path):
    found = Table(TextFile(path))
    return found, list(found.rows(BadRecords()))


def corpus(path):
    return read_corpus(path, None, "stop")


def eeg(path):
    return files.read(str(path), Data(), "text")


def events(path):
    return open_recording(path, path.name, recognize(path), 7, trained=(1, 1))


def edf(path, change=None, words=(), signal=None, **options):
    """Ten seconds of Cz, whose bytes are changed."""
    signal = signal or Signal("Cz", RATE, np.random.default_rng(0).normal(0, 5, 10 * RATE))
    write_edf(path, [signal], words, **options)
    if change:
        path.write_bytes(change(path.read_bytes()))


def bids(path, rows):
    edf(path)
    path.with_name(path.name.replace("eeg.edf", "events.tsv")).write_text(rows)


def dsec(path, **change):
    write_dsec(path, random_events(99, 9999), **change)


USER, FOUR = {"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "four"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
CHATS = {
    "messages[1].content": ({"messages": [USER, {**FOUR, "content": None}]}, {"messages": [USER, {**FOUR, "content": [{"type": "image"}]}]}),
    "messages[1].role": ({"messages": [USER, {**FOUR, "role": "asistant"}]},),
    "conversations[0].from": ({"conversations": [{"from": "robot", "value": "a"}]},),
    "messages[1].tool_calls": ({"messages": [USER, {**FOUR, "tool_calls": [CALL]}]},),
    "messages[1].weight": ({"messages": [USER, {**FOUR, "weight": 0.5}]},),
    "completion": ({"prompt": [USER], "completion": []},),
    "prompt[0].content": ({"prompt": [{"role": "user"}], "completion": "a"},),
}  # fmt: skip
"""By the field that cannot be read."""
PACKED = gzip.compress(
    "".join(f"größe {i}, a; b\tantwort {i}\n" for i in range(40)).encode(), mtime=0
)
NO_TEXTS = {
    "data.path": (PACKED[:60], PACKED[:-8] + bytes(8)),
    "a.": (b"PK\x03\x04" + bytes(40), b"%PDF-1.7\n", b"{\\rtf1 a}", b"\xd0\xcf\x11\xe0 a"),
}
"""By place: a cut gzip, one with a wrong checksum; documents that are not text."""
HEADERS = (
    *("% evt 4.0", "% evt 3.0\n% format EVT2;height=4;width=4", "% evt 2.1\n% endianness big"),
    "% evt 2.1\n% format EVT21;endianness=legacy",
)
LAYOUTS = {
    "events__x": (np.zeros(5, np.uint16),),
    "events__p": (np.full(99, 7, np.uint8),),
    "events__y": (np.full(99, 2**30, np.int64),),
    # Of the last, centuries, no gigabytes.
    "events__t": (None, np.arange(99)[::-1].astype(np.uint32), np.arange(99) << 50),
}
SCALES = ((0, 0), (5, 5), ("", ""), ("nan", 3))
RECORDINGS = (
    {"kind": "EDF+D", "starts": [1.5 * n for n in range(10)]},
    {"signal": Signal("EDF Annotations", RATE, np.zeros(RATE))},
    {
        "words": [(n + 0.5, 0.0, "word") for n in range(9)],
        "change": lambda data: data.replace(b"\n", b"\r\n"),
    },
    {"change": lambda data: data[:-1000]},
    {"records": 8},
    *(
        {"signal": Signal("Cz", RATE, np.zeros(10 * RATE), low=low, high=high)}
        for low, high in SCALES
    ),
)
"""Gaps, annotations only, changed line ends, cut, more records than the header says, no scale."""
BIDS = (
    "onset\ttrial_type\n2\tword\n",
    "onset\tduration\n2\t1\n",
    "onset\tduration\ttrial_type\nx\t1\tword\n",
)
CASES = [
    ("a.csv", '\na,"b" c"\n1,2\n', table, "a.csv:2"),
    ("a.csv", b"prompt\ngr\xf0\xb6\xc3\x9fe\n", table, "a.csv:2"),
    ("a.csv", "name; first,age\na,1\n", table, "a.csv:1"),
    *(
        (f"a.{end}", raw, corpus, place)
        for end in ("csv", "tsv", "jsonl", "txt") for place, contents in NO_TEXTS.items() for raw in contents
    ),
    *(
        ("a.jsonl", "".join(f"{json.dumps(each)}\n" for each in ({"messages": [USER, FOUR]}, row)), corpus, f"a.jsonl:2: {field} ")
        for field, rows in CHATS.items() for row in rows
    ),
    *(("a.edf", partial(edf, **options), eeg, "a.edf") for options in RECORDINGS),
    *(("sub-01_eeg.edf", partial(bids, rows=rows), eeg, "sub-01_events.tsv") for rows in BIDS),
    *(("a.raw", f"{header}\n".encode() + bytes(64), events, "a.raw, byte 0") for header in HEADERS),
    *(
        ("events.h5", partial(dsec, **{column: value}), events, "events.h5")
        for column, values in LAYOUTS.items() for value in values
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "read", "where"), CASES)
def test_a_file_is_refused_with_its_place(tmp_path, monkeypatch, name, content, read, where):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    error = error_of(read, path)
    assert where in error.where and error.message
