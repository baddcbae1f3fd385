"""A file that was replaced by another one of its size and modification time is read again."""

import dataclasses
import gzip
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest

from launcher.base.diagnostics import SettingsError
from launcher.config.feature_settings import Download
from launcher.continual.arrivals import Arrivals, list_files
from launcher.download.fetch import fetch
from launcher.run_folder import experiences
from launcher.run_folder.experiences import Experience, Ledger
from launcher.run_folder.file_records import changed_files, record_files
from models.common.data_files import identity
from models.common.recordings.files import open_recording
from models.common.recordings.openbci import open_openbci
from models.eeg_text.batches import TextInputs
from models.eeg_text.readers import zuco
from models.event_seg.readers.prophesee import build_index
from models.event_seg.readers.prophesee_format import read_header
from models.language import encoded
from models.language.readers import corpus
from tests.models.eeg_text.readers import writers
from tests.models.event_seg.writers import HEADERS, random_events, write_raw
from tests.models.language.in_memory import TOKENIZER


def by_rename(path, data):
    """As an editor, rsync or a download."""
    new, found = path.with_name(f".{path.name}.new"), path.stat()
    new.write_bytes(data)
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
    new.replace(path)


def in_place(path, data):
    """As cp --preserve onto the file."""
    found = path.stat()
    path.write_bytes(data)
    while path.stat().st_ctime_ns == found.st_ctime_ns:  # its clock ticks every few ms
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def replace(path, data, write=by_rename):
    old = path.stat()
    assert data != path.read_bytes()
    write(path, data)
    new = path.stat()
    assert (new.st_size, new.st_mtime_ns) == (old.st_size, old.st_mtime_ns)


@pytest.mark.parametrize("write", [by_rename, in_place])
def test_the_identity_of_a_file_follows_its_content(tmp_path, write):
    path = tmp_path / "a"
    path.write_bytes(b"first")
    before = identity(path)
    assert identity(path) == before
    replace(path, b"later", write)
    assert identity(path) != before


def darker(data):
    """The events of a recording, each of them a decrease of brightness."""
    begin = len(HEADERS["EVT2"])
    words = np.frombuffer(data[begin:], "<u4").copy()
    words[words >> 28 == 1] &= 0x0FFFFFFF
    return data[:begin] + words.tobytes()


def louder(data):
    """A file of ZuCo with other values; the time of writing is in its header."""
    with TemporaryDirectory() as folder:
        later = writers.write_matlab5(
            Path(folder, "a.mat"), raw={0: writers.eeg(0) + 1}
        ).read_bytes()
    return data[:128] + later[128:]


def texts(path):
    path.write_text("some words here\n\nand others there\n" * 50)
    return path


def tokens(path):
    stream = encoded.encode(corpus.read_corpus(path, None, "stop"), TOKENIZER).stream
    return stream.read(0, len(stream)).tolist()


def features(path):
    rules = SimpleNamespace(samples=1, windows=1, seed=0)
    samples = SimpleNamespace(rules=rules, numbers=[], items=[])
    return TextInputs(samples, str(path), "real").made_from


FIRST = writers.NAMES
CACHED = {
    "a.raw": (
        lambda path: write_raw(path, random_events(500, 10_000)),
        lambda path: build_index(path, read_header(path)).on,
        darker,
    ),
    "a.txt": (texts, tokens, lambda data: data.replace(b"words", b"lines")),
    "openbci.txt": (
        writers.write_openbci,
        lambda path: open_openbci(path).read(range(13), 0, 1000).tolist(),
        lambda data: data.replace(b".1", b".2"),
    ),
    "resultsYAC_NR.mat": (
        writers.write_matlab5,
        lambda path: zuco.matlab5_arrays(path)["eeg"].tolist(),
        louder,
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
    monkeypatch.setattr(corpus, "SMALL", 0)
    monkeypatch.setattr(encoded, "SMALL", 0)
    write, read, change = CACHED[name]
    path = write(tmp_path / name)
    before = read(path)
    assert read(path) == before
    assert not name.endswith("edf") or open_recording(path) is open_recording(path)
    replace(path, change(path.read_bytes()))
    assert read(path) != before


def test_features_of_a_recording_follow_the_file_with_its_samples(tmp_path):
    path = writers.write_brainvision(tmp_path / "a.vhdr")
    before = [features(place) for place in (path, tmp_path)]
    assert before == [features(place) for place in (path, tmp_path)]
    numbers = tmp_path / "a.eeg"
    replace(numbers, numbers.read_bytes()[::-1])
    after = [features(place) for place in (path, tmp_path)]
    assert after[0] != before[0] and after[1] != before[1]


def test_data_that_a_continual_run_was_trained_on(tmp_path):
    folder, run = tmp_path / "data", tmp_path / "run"
    folder.mkdir()
    run.mkdir()
    (folder / "a.txt").write_text("one")
    ledger = Ledger([Experience(0, record_files(folder, list_files(folder)), "trained")])
    ledger.save(run)
    known = experiences.load(run).known_files()
    assert not list(changed_files(folder, known))
    replace(folder / "a.txt", b"two")
    assert list(changed_files(folder, known)) == ["a.txt"]
    arrivals = Arrivals(folder, 0, 1)
    assert arrivals.new_files(ledger, now=0) == {}
    assert arrivals.notes == ["a.txt changed after it was trained on: ignored"]


def test_a_record_of_a_continual_run_holds_for_copies_and_without_inodes(tmp_path):
    first, copied = tmp_path / "first", tmp_path / "copied"
    first.mkdir()
    (first / "a.txt").write_text("one")
    known = record_files(first, list_files(first))
    old = {name: dataclasses.replace(file, inode=0, ctime_ns=0) for name, file in known.items()}
    shutil.copytree(first, copied)
    for folder, files in ((first, old), (copied, known)):
        assert not list(changed_files(folder, files))
        arrivals = Arrivals(folder, 0, 1)
        assert arrivals.new_files(Ledger([Experience(0, files, "trained")]), now=0) == {}
        assert arrivals.notes == []


@pytest.fixture
def download(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a.bin").write_bytes(b"one")
    (tmp_path / "from" / "b.txt.gz").write_bytes(gzip.compress(b"one"))

    def again(name="a.bin"):
        files = [(tmp_path / "from" / name).as_uri()]
        settings = {"files": files, "folder": str(tmp_path / "to")}
        [found] = fetch(Download.model_validate(settings, strict=True))
        return found

    return again


@pytest.mark.parametrize(("name", "write"), [("a.bin", by_rename), ("b.txt.gz", in_place)])
def test_a_downloaded_file_and_its_copy(download, name, write):
    path = download(name).path
    assert download(name).stamp == identity(path)  # so that it need not be read again
    copy = path.with_suffix(".copy")
    shutil.copy2(path, copy)
    copy.replace(path)
    assert not download(name).is_new
    replace(path, b"two", write)
    with pytest.raises(SettingsError, match="is not the declared file, or was changed"):
        download(name)
