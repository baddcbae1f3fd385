"""A damaged file of any format is data or one error, never another exception, a warning or a hang."""

import importlib
import json
import resource
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook
from PIL import Image

from gearshift.launcher.__main__ import main
from gearshift.models.abr.config import Data
from gearshift.models.abr.readers import epl, recordings
from gearshift.models.abr.readers.files import read_responses
from gearshift.models.abr.responses import ResponseReading
from gearshift.models.base import DataError
from gearshift.models.common.pictures import count_pages, open_picture
from gearshift.models.common.recordings.files import open_recording
from gearshift.models.eeg_text.config import Data as EegData
from gearshift.models.eeg_text.readers import files as eeg_files
from gearshift.models.event_seg.config import Data as EventData
from gearshift.models.event_seg.dataset import read as read_recordings
from gearshift.models.event_seg.formats import recognize
from gearshift.models.language.readers.file_corpus import read_corpus
from tests.edges.edf_files import Signal, write_edf
from tests.models.abr.conftest import HEAD
from tests.models.eeg_text.readers import writers
from tests.models.event_seg.writers import (
    HEADERS,
    random_events,
    write_dsec,
    write_masks,
    write_mvsec,
    write_raw,
)

MEMORY = 2**30
"""Bytes that a reader may allocate for a damaged file of a few kilobytes."""
_VALUES = (
    *(b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x80"),
    *(b"-1", b"0", b"99999999", b"nan", b"1e999", b"\x00", b"\n", b"\xc3\x28", b"\xe2\x80\xa8"),
)
"""Values that readers trip over: large and negative numbers, ends, and invalid UTF-8."""


def damaged(data, seed):
    """`data` after one to three damages: cut, flipped, written, zeroed, doubled or removed bytes.

    Half of the places are in the first 512 bytes, where most formats have their header.
    """
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(1, min(512, len(data)) if rng.random() < 0.5 else len(data))))
        end = at + int(rng.integers(1, 65))
        value = _VALUES[rng.integers(len(_VALUES))]
        data = (
            data[:at],
            data[:at] + bytes(b ^ 1 << rng.integers(8) for b in data[at : at + 1]) + data[at + 1 :],
            data[:at] + value + data[at + len(value) :],
            data[:at] + bytes(len(data[at:end])) + data[end:],
            data[:end] + data[at:],
            data[:at] + data[end:],
        )[rng.integers(6)]
    return data


@contextmanager
def limited_memory(more=MEMORY):
    """Let this process allocate `more` bytes; a larger allocation raises MemoryError."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def error_of(read):
    """The one error that `read` may raise, without a warning; None: it gave data."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            with limited_memory():
                read()
        except DataError as error:
            assert error.message and "MemoryError" not in error.message
            assert error.where or error.fix or error.allowed, error.message
            return error
    return None


def check_damaged(path, read, count):
    """Read a whole file, and `count` damaged versions of it at its path."""
    whole = path.read_bytes()
    assert error_of(lambda: read(path)) is None
    try:
        for seed in range(count):
            path.write_bytes(damaged(whole, seed))
            try:
                error_of(lambda: read(path))
            except Exception as error:
                raise AssertionError(f"{path.name} with damage {seed}") from error
    finally:
        path.write_bytes(whole)


RATE = 250
ROWS = [{"prompt": f"größe {i}, \u2028 a", "completion": f"answer {i}"} for i in range(12)]
CHATS = [
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
] * 4
TABLE = "prompt;completion\n" + "".join(f'"{r["prompt"]}";{r["completion"]}\n' for r in ROWS)


def edf(path, kind):
    """12 s in two rates."""
    rng = np.random.default_rng(0)
    signals = [Signal("Cz", RATE, rng.normal(0, 5, 12 * RATE))]
    signals += [Signal("Pz", 2 * RATE, rng.normal(0, 5, 24 * RATE))]
    events = [(2.0 * n + 0.1, 1.5, "frère") for n in range(6)]
    write_edf(path, signals, events, kind=kind, record_s=2.0, encoding="latin-1")


def fif(path):
    """Four seconds of two channels, with an annotation."""
    import mne

    info = mne.create_info(["Cz", "Pz"], RATE, "eeg")
    values = np.random.default_rng(0).normal(0, 1e-5, (2, 4 * RATE))
    raw = mne.io.RawArray(values, info, verbose="error")
    raw.set_annotations(mne.Annotations([1.0], [0.5], ["word"]))
    raw.save(path, verbose="error")


def small(write):
    """A file of ZuCo with short sentences."""
    eeg = {n: writers.eeg(n, 70) for n in (0, 1, 3)}
    is_old = write is writers.write_matlab5
    return lambda path: write(path, eeg if is_old else {n: x.T for n, x in eeg.items()})


def level_series(path):
    values = np.random.default_rng(0).normal(0, 1, (1000, 2))
    rows = "\r\n".join("\t".join(f"{x:.6f}" for x in row) for row in values)
    series = path.with_name("ABR-1-1")
    series.write_bytes(f"{HEAD}:LEVELS:20;40;\r:DATA\r{rows}\r\n".encode("iso-8859-1"))
    marks = "Threshold (dB SPL): 20\nLevel\tP5 Latency\tP5 Amplitude\n20\t5.1\t0.2\n40\t4.9\t0.4\n"
    series.with_name("ABR-1-1-16.00kHz-anna-analyzed.txt").write_text(marks)


def workbook(path):
    book = Workbook()
    book.active.append(["patient_id", "intensity", "hear_loss", *range(1, 201)])
    for patient in range(3):
        book.active.append([f"p{patient}", 80, patient, *[0.5 * patient] * 200])
    book.save(path)


def parquet(path):
    pyarrow = pytest.importorskip("pyarrow")
    importlib.import_module("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(ROWS), path)


def page(path):
    sheet, form = Image.linear_gradient("L").resize((60, 80)), path.suffix[1:].upper()
    more = {"compression": "tiff_lzw", "save_all": True, "append_images": [sheet]}
    sheet.save(path, form, **(more if form == "TIFF" else {}))


def events(path, name):
    written = random_events(300, 100_000)
    write_dsec(path, written) if name == "DSEC" else write_raw(path, written, name)
    write_masks(path, [20_000, 60_000])


def use(path):
    """All that training reads: segments, events and the first samples."""
    if path.suffix == ".mat":
        found = eeg_files.read(str(path), EegData(on_bad="skip"), "encoder")
    else:
        recording = open_recording(path.with_suffix(".vhdr") if path.suffix == ".vmrk" else path)
        recording.events()
        found = eeg_files.read(str(recording.path), EegData(on_bad="skip", seq_len=400), "encoder")
        reading = ResponseReading(Data(sweeps=2, reject_uv=1000.0))
        list(recordings.read(recording.path, path.name, reading))
    for item in found.items[:2]:
        assert len(item.load()) == item.samples


def read_series(path):
    reading, series = ResponseReading(Data()), path.with_name("ABR-1-1")
    found = list(epl.read(series, series.name, reading))
    assert found or reading.bad_records.rows or reading.left_out


def read_windows(path):
    if recognize(path) is None:
        return
    for recording in read_recordings(EventData(path=str(path)), (48, 64))[0]:
        for number in range(0, len(recording.windows), max(1, len(recording.windows) // 3)):
            recording.events(number)
            recording.label(number, 1)


def read_text(path):
    for on_bad in ("stop", "skip"):  # what is read under `stop` is read under `skip` too
        corpus = read_corpus(path, None, on_bad)
        list(corpus.records())


def show(path):
    for number in range(min(3, count_pages(path))):
        assert open_picture(path, page=number).mode in ("L", "RGB")


CASES = {
    "a.edf": (partial(edf, kind="EDF+C"), use, 20),
    "a.bdf": (partial(edf, kind="BDF+C"), use, 20),
    "a.vhdr": (writers.write_brainvision, use, 20),
    "a.vmrk": (lambda path: writers.write_brainvision(path.with_suffix(".vhdr")), use, 20),
    "a.set": (writers.write_eeglab, use, 10),
    "a_raw.fif": (fif, use, 20),
    "resultsA_NR.mat": (small(writers.write_matlab5), use, 10),
    "resultsB_NR.mat": (small(writers.write_matlab73), use, 20),
    "ABR-1-1": (level_series, read_series, 40),
    "ABR-1-1-16.00kHz-anna-analyzed.txt": (level_series, read_series, 40),
    **{f"{n}.{'dat' if n == 'DAT' else 'raw'}": (partial(events, name=n), read_windows, 40) for n in HEADERS},
    "indoor_flying1_data.hdf5": (partial(write_mvsec, frames=4, per_frame=20), read_windows, 40),
    "events.h5": (partial(events, name="DSEC"), read_windows, 40),
    "a.csv": (TABLE.encode(), read_text, 60),
    "b.csv": (TABLE.replace("\u2028", "").encode("cp1252"), read_text, 60),
    "a.tsv": (TABLE.replace(";", "\t").encode("utf-16-le"), read_text, 60),
    "a.jsonl": ("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS + CHATS).encode(), read_text, 60),
    "a.json": (json.dumps(ROWS + CHATS, indent=1).encode(), read_text, 60),
    "b.txt": (b"words and more words\n\n" * 50, read_text, 60),
    "a.xlsx": (workbook, lambda path: read_responses(str(path), Data(on_bad="skip")), 20),
    "a.parquet": (parquet, lambda path: read_corpus(path, None, "skip"), 20),
    **{f"page.{form}": (page, show, 30) for form in ("png", "tiff", "gif", "jpeg", "webp", "ppm", "bmp")},
}  # fmt: skip
"""By the name of a file: its content or what writes it, what reads it, and how many damaged versions."""


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_file_is_data_or_one_error(tmp_path, monkeypatch, name):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    content, read, count = CASES[name]
    content(tmp_path / name) if callable(content) else (tmp_path / name).write_bytes(content)
    check_damaged(tmp_path / name, read, count)


ENCODER = ("--model", "eeg_text:tiny", "--set", "model.stage=encoder", "--set", "data.seq_len=200")
CHECKED = {
    "a.set": (writers.write_eeglab, ENCODER),
    "a_raw.fif": (writers.write_fif, ENCODER),
    "a.vhdr": (writers.write_brainvision, ENCODER),
    "resultsA_NR.mat": (writers.write_matlab5, ("--model", "eeg_text:tiny")),
    "EVT3.raw": (partial(events, name="EVT3"), ("--model", "event_seg:tiny")),
    "a_data.hdf5": (partial(write_mvsec, frames=20, per_frame=60), ("--model", "event_seg:tiny")),
}
"""By the name of a file, what writes it and the arguments of its check."""


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKED)
def test_the_check_of_a_file_with_wrong_bytes_ends_in_order(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write, arguments = CHECKED[name]
    path = tmp_path / "data" / name
    path.parent.mkdir()
    write(path)
    whole, beside = path.read_bytes(), sorted(path.parent.iterdir())
    for seed in range(12):
        rng = np.random.default_rng(seed)
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), 3000), 3):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        code = main(["data", "check", str(path), *arguments, "--set", "eval.share=0.34"])
        assert code in (0, 1, 2), seed
        assert "Traceback" not in capsys.readouterr().err, seed
        assert sorted(path.parent.iterdir()) == beside
        assert {entry.name for entry in tmp_path.iterdir()} <= {"cache", "data", "data-check"}
