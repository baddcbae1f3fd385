"""A damaged recording is data or one error, never another exception, a warning or a hang."""

import warnings
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.abr.readers.epl import EplReader
from models.abr.readers.recordings import Averaging, RecordingReader
from models.common.data_files import BadRecords
from models.common.recordings.files import open_recording
from models.eeg_text.readers import continuous, zuco
from models.eeg_text.recordings import ReadingOptions
from tests.edges.damage import damaged, error_of, fuzz
from tests.edges.edf_files import Signal, write_edf
from tests.models.abr.conftest import HEAD
from tests.models.eeg_text.readers import writers

RATE = 250


def edf(path, kind):
    """12 s in two rates; every two seconds half a second is missing, if `kind` allows gaps."""
    rng = np.random.default_rng(0)
    signals = [Signal("Cz", RATE, rng.normal(0, 5, 12 * RATE))]
    signals += [Signal("Pz", 2 * RATE, rng.normal(0, 5, 24 * RATE))]
    starts = [(2.5 if kind.endswith("D") else 2.0) * n for n in range(6)]
    events = [(start + 0.1, 1.5, "frère") for start in starts]
    return write_edf(
        path, signals, events, kind=kind, starts=starts, record_s=2.0, encoding="latin-1"
    )


def fif(path):
    """Four seconds of two channels, with an annotation."""
    import mne

    info = mne.create_info(["Cz", "Pz"], RATE, "eeg")
    values = np.random.default_rng(0).normal(0, 1e-5, (2, 4 * RATE))
    raw = mne.io.RawArray(values, info, verbose="error")
    raw.set_annotations(mne.Annotations([1.0], [0.5], ["word"]))
    raw.save(path, verbose="error")
    return path


def epl(path):
    """Two levels of 10 ms, and the marks of a rater."""
    values = np.random.default_rng(0).normal(0, 1, (1000, 2))
    rows = "\r\n".join("\t".join(f"{x:.6f}" for x in row) for row in values)
    path.write_bytes(f"{HEAD}:LEVELS:20;40;\r:DATA\r{rows}\r\n".encode("iso-8859-1"))
    marks = "Threshold (dB SPL): 20\nLevel\tP5 Latency\tP5 Amplitude\n20\t5.1\t0.2\n40\t4.9\t0.4\n"
    path.with_name(f"{path.name}-16.00kHz-anna-analyzed.txt").write_text(marks)
    return path


def small(write):
    """A file of ZuCo with short sentences."""
    eeg = {n: writers.eeg(n, 70) for n in (0, 1, 3)}
    is_old = write is writers.write_matlab5
    return lambda path: write(path, eeg if is_old else {n: x.T for n, x in eeg.items()})


WRITERS = {
    "a.edf": partial(edf, kind="EDF+D"),
    "b.edf": partial(edf, kind="EDF+C"),
    "a.bdf": partial(edf, kind="BDF+D"),
    "a.vhdr": writers.write_brainvision,
    "a.vmrk": lambda path: writers.write_brainvision(path.with_suffix(".vhdr")),
    "a.set": writers.write_eeglab,
    "a_raw.fif": fif,
    "resultsA_NR.mat": small(writers.write_matlab5),
    "resultsB_NR.mat": small(writers.write_matlab73),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Whole files of each format, with a map of channels."""
    folder = tmp_path_factory.mktemp("whole")
    for name, write in WRITERS.items():
        write(folder / name)
    epl(folder / "ABR-1-1")
    return folder


def use(path):
    """All that training reads: segments, events and the first samples."""
    if path.suffix == ".mat":
        found = zuco.read(path, "skip")
    else:
        recording = open_recording(path.with_suffix(".vhdr") if path.suffix == ".vmrk" else path)
        recording.events()
        found = continuous.read(recording.path, ReadingOptions("skip", samples=400))
        reader = RecordingReader(BadRecords("files"), Averaging(2, 1000.0, None))
        list(reader.read(recording.path, path.name))
    for number in range(min(2, len(found.items))):
        assert len(found.items[number].load()) == found.items[number].samples


def test_a_whole_recording_is_read(folder):
    assert {name: error_of(partial(use, folder / name)) for name in WRITERS} == dict.fromkeys(
        WRITERS
    )


@pytest.mark.parametrize("following", [0x24, -16])
def test_tags_of_fif_in_a_circle_are_an_error_and_no_hang(folder, tmp_path, following):
    whole = bytearray((folder / "a_raw.fif").read_bytes())
    # The directory pointer at byte 36 names itself, or has a length of -16.
    place = 36 + 12 if following > 0 else 36 + 8
    whole[place : place + 4] = following.to_bytes(4, "big", signed=True)
    (tmp_path / "a_raw.fif").write_bytes(whole)
    error = error_of(partial(use, tmp_path / "a_raw.fif"))
    assert error.message == "'a_raw.fif' cannot be read: its tag at byte 36 follows itself"


def check(path, content, read):
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        error_of(partial(read, path))
    assert [str(warning.message) for warning in shown] == []


@contextmanager
def restored(path):
    whole = path.read_bytes()
    try:
        yield whole
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", WRITERS)
@settings(fuzz, max_examples=20)
@given(data=st.data())
def test_a_damaged_recording_is_data_or_one_error(folder, name, data):
    with restored(folder / name) as whole:
        check(folder / name, data.draw(damaged(whole)), use)


@pytest.mark.parametrize("name", ["ABR-1-1", "ABR-1-1-16.00kHz-anna-analyzed.txt"])
@settings(fuzz, max_examples=50)
@given(data=st.data())
def test_a_damaged_level_series_is_rows_or_bad_records(folder, name, data):
    def read(_):
        reader = EplReader(BadRecords("files"))
        rows = list(reader.read(folder / "ABR-1-1", "ABR-1-1"))
        assert rows or reader.bad_records.rows or reader.silent_levels

    with restored(folder / name) as whole:
        check(folder / name, data.draw(damaged(whole)), read)
