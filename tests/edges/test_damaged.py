"""A damaged file of any format is data or one error, never another exception, a warning or a hang."""

import gzip
import io
import json
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from openpyxl import Workbook
from PIL import Image

from models.abr.readers.epl import EplReader
from models.abr.readers.files import read_responses
from models.abr.readers.recordings import Averaging, RecordingReader
from models.common.data_files import ALWAYS_UNPACKED, BadRecords
from models.common.pictures import count_pages, open_picture
from models.common.recordings.files import open_recording
from models.eeg_text.readers import continuous, zuco
from models.eeg_text.recordings import ReadingOptions
from models.event_seg.dataset import find_recordings
from models.event_seg.formats import recognize
from models.language.readers.corpus import read_corpus
from tests.edges.damage import check_damaged, error_of
from tests.edges.edf_files import Signal, write_edf
from tests.models.abr.conftest import HEAD
from tests.models.eeg_text.readers import writers
from tests.models.event_seg.writers import HEADERS, random_events, write_dsec, write_mvsec, write_raw

RATE = 250
ROWS = [{"prompt": f"größe {i}, \u2028 a", "completion": f"answer {i}"} for i in range(12)]
CHATS = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}] * 4
TABLE = "prompt;completion\n" + "".join(f'"{r["prompt"]}";{r["completion"]}\n' for r in ROWS)


def edf(path, kind):
    """12 s in two rates; every two seconds half a second is missing, if `kind` allows gaps."""
    rng = np.random.default_rng(0)
    signals = [Signal("Cz", RATE, rng.normal(0, 5, 12 * RATE))]
    signals += [Signal("Pz", 2 * RATE, rng.normal(0, 5, 24 * RATE))]
    starts = [(2.5 if kind.endswith("D") else 2.0) * n for n in range(6)]
    events = [(start + 0.1, 1.5, "frère") for start in starts]
    write_edf(path, signals, events, kind=kind, starts=starts, record_s=2.0, encoding="latin-1")


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


RECORDINGS = {
    "a.edf": partial(edf, kind="EDF+D"),
    "a.bdf": partial(edf, kind="BDF+D"),
    "a.vhdr": writers.write_brainvision,
    "a.vmrk": lambda path: writers.write_brainvision(path.with_suffix(".vhdr")),
    "a.set": writers.write_eeglab,
    "a_raw.fif": fif,
    "resultsA_NR.mat": small(writers.write_matlab5),
    "resultsB_NR.mat": small(writers.write_matlab73),
}


def use(path):
    """All that training reads: segments, events and the first samples."""
    if path.suffix == ".mat":
        found = zuco.read(path, "skip")
    else:
        recording = open_recording(path.with_suffix(".vhdr") if path.suffix == ".vmrk" else path)
        recording.events()
        options = ReadingOptions("skip", samples=400, channels=None)
        found = continuous.read(recording.path, options)
        reader = RecordingReader(BadRecords("files"), Averaging(2, 1000.0, None))
        list(reader.read(recording.path, path.name))
    for item in found.items[:2]:
        assert len(item.load()) == item.samples


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_of_eeg(tmp_path, name):
    RECORDINGS[name](tmp_path / name)
    check_damaged(tmp_path / name, use, 20)


@pytest.mark.parametrize("following", [0x24, -16])
@pytest.mark.parametrize("name", ["a_raw.fif", "a_raw.fif.gz"])
def test_tags_of_fif_in_a_circle_are_an_error_and_no_hang(tmp_path, following, name):
    fif(tmp_path / "a_raw.fif")
    whole = bytearray((tmp_path / "a_raw.fif").read_bytes())
    # The directory pointer at byte 36 names itself, or has a length of -16.
    place = 36 + 12 if following > 0 else 36 + 8
    whole[place : place + 4] = following.to_bytes(4, "big", signed=True)
    (tmp_path / name).write_bytes(gzip.compress(whole) if name.endswith("gz") else whole)
    assert error_of(partial(use, tmp_path / name)) is not None


def test_packed_fif_that_unpacks_to_far_more_than_real_data_is_an_error(tmp_path):
    path = tmp_path / "a_raw.fif.gz"
    fif(path)
    assert error_of(partial(use, path)) is None
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(10**6)) * 80)
    error = error_of(partial(use, path))
    assert error is not None and error.allowed.startswith(f"at most {ALWAYS_UNPACKED:,} ")


def test_a_level_series_is_rows_or_bad_records(tmp_path):
    values = np.random.default_rng(0).normal(0, 1, (1000, 2))
    rows = "\r\n".join("\t".join(f"{x:.6f}" for x in row) for row in values)
    path, marks = tmp_path / "ABR-1-1", tmp_path / "ABR-1-1-16.00kHz-anna-analyzed.txt"
    path.write_bytes(f"{HEAD}:LEVELS:20;40;\r:DATA\r{rows}\r\n".encode("iso-8859-1"))
    marks.write_text("Threshold (dB SPL): 20\nLevel\tP5 Latency\tP5 Amplitude\n20\t5.1\t0.2\n40\t4.9\t0.4\n")

    def read(_):
        reader = EplReader(BadRecords("files"))
        found = list(reader.read(path, path.name))
        assert found or reader.bad_records.rows or reader.silent_levels

    check_damaged(path, read, 40)
    check_damaged(marks, read, 40)


def windows(path):
    if recognize(path) is None:
        return
    chosen = SimpleNamespace(window_ms=None, sensor=None, sequences=[], mvsec_sequence=None)
    for recording in find_recordings(path, chosen, BadRecords())[0]:
        for number in range(0, len(recording.windows), max(1, len(recording.windows) // 3)):
            recording.events(number)
            if recording.labels:
                recording.label(number, 1)


@pytest.mark.parametrize("name", [*HEADERS, "MVSEC", "DSEC"])
def test_events(tmp_path, monkeypatch, name):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    if name == "MVSEC":
        path = write_mvsec(tmp_path / "indoor_flying1_data.hdf5", frames=4, per_frame=20)
    elif name == "DSEC":
        path = write_dsec(tmp_path / "events.h5", random_events(300, 100_000))
    else:
        events = random_events(300, 100_000)
        path = write_raw(tmp_path / ("a.dat" if name == "DAT" else "a.raw"), events, name)
    check_damaged(path, windows, 40)


def read_text(path):
    def read(on_bad):
        corpus = read_corpus(path, None, on_bad)
        list(corpus.documents() if corpus.is_text else corpus.exchanges())

    read("stop")
    read("skip")  # what is read under `stop` is read under `skip` too


TEXTS = {
    "a.csv": TABLE.encode(),
    "b.csv": TABLE.replace("\u2028", "").encode("cp1252"),
    "a.tsv": TABLE.replace(";", "\t").encode("utf-16-le"),
    "a.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS + CHATS).encode(),
    "a.json": json.dumps(ROWS + CHATS, indent=1).encode(),
    "b.txt": b"words and more words\n\n" * 50,
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text(tmp_path, name):
    (tmp_path / name).write_bytes(TEXTS[name])
    check_damaged(tmp_path / name, read_text, 60)


def test_a_workbook(tmp_path):
    book = Workbook()
    book.active.append(["patient_id", "intensity", "hear_loss", *range(1, 201)])
    for patient in range(3):
        book.active.append([f"p{patient}", 80, patient, *[0.5 * patient] * 200])
    book.save(tmp_path / "a.xlsx")
    check_damaged(tmp_path / "a.xlsx", lambda path: read_responses(str(path), "skip", None), 20)


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_a_parquet_file(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    check_damaged(tmp_path / "a.parquet", lambda path: read_corpus(path, None, "skip"), 20)


def show(path):
    for number in range(min(3, count_pages(path))):
        assert open_picture(path, page=number).mode in ("L", "RGB")


@pytest.mark.parametrize("form", ["PNG", "TIFF", "GIF", "JPEG", "WEBP", "PPM", "BMP"])
def test_a_picture(tmp_path, form):
    sheet, file = Image.linear_gradient("L").resize((60, 80)), io.BytesIO()
    more = {"compression": "tiff_lzw", "save_all": True, "append_images": [sheet]}
    sheet.save(file, form, **(more if form == "TIFF" else {}))
    (tmp_path / "page").write_bytes(file.getvalue())
    check_damaged(tmp_path / "page", show, 30)
