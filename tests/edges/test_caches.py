"""A file that was replaced by another one of its size and modification time is read again."""

import os

import numpy as np
import pytest

from gearshift.models.common.recordings.files import open_recording
from gearshift.models.event_seg.formats import EVT2
from gearshift.models.event_seg.readers.files import open_recording as open_events
from gearshift.models.language import encoded
from gearshift.models.language.readers import file_corpus
from tests.models.eeg_text.readers import writers
from tests.models.event_seg.writers import HEADERS, random_events, write_raw
from tests.models.language.in_memory import TOKENIZER


def replace(path, data):
    """Another file of the same size and time, as an editor, rsync or a download puts it in its place."""
    assert len(data) == path.stat().st_size and data != path.read_bytes()
    new, found = path.with_name(f".{path.name}.new"), path.stat()
    new.write_bytes(data)
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
    new.replace(path)


def darker(data):
    """The events of a recording, each of them a decrease of brightness."""
    begin = len(HEADERS["EVT2"])
    words = np.frombuffer(data[begin:], "<u4").copy()
    words[words >> 28 == 1] &= 0x0FFFFFFF
    return data[:begin] + words.tobytes()


def tokens(path):
    found = encoded.encode(file_corpus.read_corpus(path, None, "stop"), TOKENIZER)
    return found.read(0, found.offsets[-1]).tolist()


FIRST = writers.NAMES
CACHED = {
    "a.raw": (
        lambda path: write_raw(path, random_events(500, 10_000)),
        lambda path: open_events(path, "a", EVT2, 5, None, (1, 1)).all_events.p.sum(),
        darker,
    ),
    "a.txt": (
        lambda path: path.write_text("some words here\n\nand others there\n" * 50),
        tokens,
        lambda data: data.replace(b"words", b"lines"),
    ),
    "a.edf": (
        lambda path: writers.write_edf(
            path, FIRST, writers.SECONDS, writers.RATE_HZ, writers.waves
        ),
        lambda path: open_recording(path).names,
        lambda data: data.replace(FIRST[0].encode(), b"X" * len(FIRST[0])),
    ),
}
"""What writes a file, what reads it by a cache, and its content later."""


@pytest.mark.parametrize("name", CACHED)
def test_a_replaced_file_is_read_again(tmp_path, name, monkeypatch):
    monkeypatch.setattr(file_corpus, "SMALL", 0)
    monkeypatch.setattr(encoded, "SMALL", 0)
    write, read, change = CACHED[name]
    path = tmp_path / name
    write(path)
    before = read(path)
    assert read(path) == before
    assert not name.endswith("edf") or open_recording(path) is open_recording(path)
    replace(path, change(path.read_bytes()))
    assert read(path) != before
