"""Sentences and stimuli come from tables beside a recording, whatever characters they contain."""

import numpy as np
import pytest

from models.abr.config import Data
from models.abr.readers import recordings
from models.abr.responses import ResponseReading
from models.common.recordings.bids import events_path
from models.eeg_text.readers import continuous
from models.eeg_text.recordings import ReadingOptions
from tests.edges.edf_files import Signal, write_edf
from tests.models.errors import error_of

RATE, SECONDS = 250, 60


@pytest.fixture
def recording(tmp_path):
    """A minute of EEG in sub-01_task-read_eeg.edf, with an annotation."""
    values = np.random.default_rng(0).normal(0, 5, RATE * SECONDS)
    signals = [Signal("Cz", RATE, values), Signal("Pz", RATE, values)]
    return write_edf(tmp_path / "sub-01_task-read_eeg.edf", signals, [(5.0, 1.0, "own")])


@pytest.fixture
def events(recording):
    """Writes the table of events of BIDS beside the recording."""

    def write(text, name="sub-01_task-read_events.tsv"):
        recording.with_name(name).write_text(text, encoding="utf-8", newline="")

    return write


def texts_of(path, **reading):
    return [item.text for item in continuous.read(path, ReadingOptions(**reading)).items]


def test_a_table_with_semicolons_and_decimal_commas_is_read(recording):
    rows = "onset_s;duration_s;text\n2,5;1,5;the old man\n5,25;1,5;a child\n"
    recording.with_suffix(".csv").write_bytes(rows.encode("utf-16"))
    found = continuous.read(recording, ReadingOptions())
    assert [item.start_s for item in found.items] == [2.5, 5.25]
    assert found.notes["notes"] == ["sub-01_task-read_eeg.csv: decimal comma"]


def test_the_events_of_bids_are_the_sentences(recording, events):
    events(
        "onset\tduration\ttrial_type\tvalue\n2.0\tn/a\tthe old man\t1\n4.0\t0\tn/a\t2\n"
        "4.5\t0.5\ta child\t3\n9\t0\tlast of all\t4\n"
    )
    found = continuous.read(recording, ReadingOptions())
    assert [item.text for item in found.items] == ["the old man", "a child", "last of all"]
    assert [item.start_s for item in found.items] == [2.0, 4.5, 9.0]
    # n/a and 0 last until the next event, at most a window; that of 2 s ends at 4 s.
    assert [item.samples for item in found.items] == [800, 250, 800]
    assert found.notes["notes"] == [
        "sub-01_task-read_events.tsv: 1 of 4 rows have no trial_type (n/a) and are left out"
    ]


def test_the_first_filled_column_has_the_sentences(recording, events):
    for columns, row, expected in (
        ("onset\tduration\tvalue", "2\t1\tone word", "one word"),
        ("onset\tduration\ttrial_type\tvalue", "2\t1\tn/a\tone word", "one word"),
        ("onset\tduration\ttrial_type\ttext", "2\t1\tstimulus\tone word", "one word"),
        ("trial_type\tonset\tduration", "one\u2028word\t2\t1", "one\u2028word"),
    ):
        events(f"{columns}\n{row}\n")
        assert texts_of(recording) == [expected], columns
    # A table named as the recording comes before that of BIDS.
    recording.with_suffix(".tsv").write_text("onset_s\tduration_s\ttext\n2\t1\town table\n")
    assert texts_of(recording) == ["own table"]


def test_stages_without_text_read_windows_and_prediction_the_segments_of_bids(recording, events):
    def count(**reading):
        return len(continuous.read(recording, ReadingOptions(**reading)).items)

    windows = count(needs_text=False)
    events("onset\tduration\ttrial_type\n2\t1\tword\n4\t1\tword\n")
    assert count(needs_text=False) == windows > 20 and count(to_predict=True) == 2
    events("onset\tduration\n2\t1\n")
    assert count(to_predict=True) > 20


def test_an_unusable_table_of_events_is_an_error_with_its_file(recording, events):
    for text, message in (
        ("onset\ttrial_type\n2\tword\n", "'sub-01_task-read_events.tsv' has no column duration"),
        ("onset\tduration\n2\t1\n", "'sub-01_task-read_events.tsv' has no sentences"),
        (
            "onset\tduration\ttrial_type\nn/a\t1\tword\n3\t1\tword\n",
            "1 of 2 recordings, segments and rows cannot be used",
        ),
        (
            "onset\tduration\ttrial_type\nx\t1\tword\n3\t1\tword\n",
            "1 of 2 recordings, segments and rows cannot be used",
        ),
    ):
        events(text)
        error = error_of(continuous.read, recording, ReadingOptions())
        assert error.message == message
        assert "sub-01_task-read_events.tsv" in error.where and error.fix


def test_the_table_of_a_recording_is_found_by_its_name(tmp_path):
    for name, beside in (
        ("sub-01_task-x_eeg.edf", "sub-01_task-x_events.tsv"),
        ("sub-01_task-x_run-2_meg.fif.gz", "sub-01_task-x_run-2_events.tsv"),
        ("bids.edf", "bids_events.tsv"),
        ("a.b_ieeg.vhdr", "a.b_events.tsv"),
    ):
        assert events_path(tmp_path / name) is None
        (tmp_path / beside).touch()
        assert events_path(tmp_path / name) == tmp_path / beside


def test_stimuli_come_from_the_table_of_bids(tmp_path):
    rate = 10_000
    path = tmp_path / "sub-01_eeg.edf"
    write_edf(path, [Signal("Cz", rate, np.random.default_rng(0).normal(0, 2, 5 * rate))])
    rows = "".join(f"{0.05 + 0.02 * n:.3f}\t0\tclick 60 dB\n" for n in range(200))
    (tmp_path / "sub-01_events.tsv").write_text("onset\tduration\ttrial_type\n" + rows)
    reading = ResponseReading(Data(sweeps=100))
    found = list(recordings.read(path, path.name, reading))
    assert [row.level for row in found] == [60, 60] and reading.bad_records.rows == []
    assert found[0].rate == pytest.approx(50)
