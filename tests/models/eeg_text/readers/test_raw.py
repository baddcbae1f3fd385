import numpy as np
import pytest

from gearshift.models.common.recordings.files import open_recording
from gearshift.models.eeg_text import formats
from gearshift.models.eeg_text.config import Data
from gearshift.models.eeg_text.readers import files
from tests.models.eeg_text.readers.writers import (
    CODES,
    EVENTS,
    NAMES,
    RATE_HZ,
    SECONDS,
    all_waves,
    waves,
    write_brainvision,
    write_edf,
    write_eeglab,
    write_fif,
)
from tests.models.errors import error_of

WRITERS = {
    "a.edf": lambda path: write_edf(path, NAMES, SECONDS, RATE_HZ, waves),
    "a.vhdr": write_brainvision,
    "a.set": write_eeglab,
    "a_raw.fif": write_fif,
    "a_raw.fif.gz": write_fif,
}


def read(path, use="encoder", **data):
    return files.read(str(path), Data(**data), use)


def microvolts(found):
    """All samples of the channels of the montage."""
    return found.read(range(len(NAMES)), *found.pieces[0].bounds(RATE_HZ))


def events(path):
    return [(e.onset_s, e.duration_s, e.name) for e in open_recording(path).events()]


@pytest.mark.parametrize("name", WRITERS)
def test_samples_names_and_segments_are_equal_in_every_format(tmp_path, name):
    path = WRITERS[name](tmp_path / name)
    opened = open_recording(path)
    assert opened.rate_hz == RATE_HZ and opened.notes == ()
    assert opened.names[: len(NAMES)] == NAMES
    # Half of the step of the 16-bit formats, a tenth of a microvolt.
    np.testing.assert_allclose(microvolts(opened), all_waves(), atol=0.051)
    found = read(path)
    edf = read(WRITERS["a.edf"](tmp_path / "a.edf"))
    assert found.facts["format"] == formats.of_file(path) and len(found.items) == len(edf.items)
    np.testing.assert_allclose(found.items[5].load(), edf.items[5].load(), atol=0.1)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "a.edf"])
def test_events_are_those_of_the_recording(tmp_path, name):
    found = events(WRITERS[name](tmp_path / name))
    has_names = name in ("a.vhdr", "a.set")
    expected = [(onset, kind if has_names else str(CODES[kind])) for onset, kind in EVENTS]
    if "fif" in name:  # the first event is also an annotation
        expected = sorted([*expected, EVENTS[0]])
    named = sorted((onset, kind.removeprefix("Comment/")) for onset, _, kind in found)
    assert named == expected


def test_events_of_a_channel_name_sentences(tmp_path):
    path = write_fif(tmp_path / "a_raw.fif", first_sample=1000)
    whole = events(path)
    assert whole == events(write_fif(tmp_path / "b_raw.fif", first_sample=0))
    assert [event for event in whole if event[2] == "word"] == [(2.0, 0.5, "word")]
    texts = tmp_path / "texts.json"
    texts.write_text('{"7": "A child paints."}')
    found = read(path, "text", texts=str(texts))
    assert [item.text for item in found.items] == ["A child paints."] * 2
    assert [item.start_s for item in found.items] == [2.0, 9.0]


@pytest.mark.parametrize("date", [None, 1_600_000_000])
def test_events_of_a_cropped_recording_stay_beside_their_samples(tmp_path, date):
    path = write_fif(tmp_path / "a_raw.fif", first_sample=1000, date=date)
    # The first event is in the event channel, too.
    assert events(path)[:2] == [(2.0, 0.0, "7"), (2.0, 0.5, "word")]


@pytest.mark.parametrize("boundary", ["boundary", -99, "-99", -99.0])
def test_no_segment_spans_a_pause_that_eeglab_marks(tmp_path, boundary):
    marks = [(2.0, 7), (7.3, boundary), (9.0, 7)]
    path = write_eeglab(tmp_path / "a.set", marks)
    assert [piece.end_s for piece in open_recording(path).pieces] == pytest.approx(
        [7.3, SECONDS], abs=0.01
    )
    assert not [i for i in read(path).items if i.start_s < 7.29 < i.start_s + i.samples / 500]
    texts = tmp_path / "texts.json"
    texts.write_text('{"7": "A child paints."}')
    assert [item.start_s for item in read(path, "text", texts=str(texts)).items] == [2.0, 9.0]


def test_epochs_are_refused(tmp_path):
    import mne

    write_eeglab(tmp_path / "a.set", trials=4)
    info = mne.create_info(NAMES, RATE_HZ, "eeg")
    epochs = mne.EpochsArray(np.ones((2, len(NAMES), 256)) * 1e-6, info, verbose="error")
    epochs.save(tmp_path / "a-epo.fif", verbose="error")
    for name in ("a.set", "a-epo.fif"):
        assert error_of(read, tmp_path / name).where == str(tmp_path / name)


def test_channels_of_other_types_and_bad_ones_are_left_out(tmp_path):
    found = read(write_fif(tmp_path / "a_raw.fif", bad=["F3"]))
    assert found.facts["channels_dropped"] == ["F3", "STI 014"]
    assert found.facts["channels"] == len(NAMES) - 1


def test_a_split_recording_is_read_once(tmp_path):
    names = NAMES * 12
    path = tmp_path / "long_raw.fif"
    import mne

    values = np.tile(all_waves() * 1e-6, (12, 1))
    info = mne.create_info([f"{name}{n}" for n, name in enumerate(names)], RATE_HZ, "eeg")
    mne.io.RawArray(values, info, verbose="error").save(path, split_size="2MB", verbose="error")
    (tmp_path / "map.json").write_text(f'{{"{info.ch_names[0]}": "Fz"}}')
    assert len(list(tmp_path.glob("long_raw*.fif"))) > 1
    options = {"channels": str(tmp_path / "map.json")}
    found = read(tmp_path, **options)
    assert {item.subject for item in found.items} == {"long_raw"}
    assert len(found.items) == len(read(path, **options).items)


@pytest.mark.parametrize("name", ["a.set", "a_raw.fif"])
def test_a_damaged_or_incomplete_file_is_an_error(tmp_path, name):
    path = WRITERS[name](tmp_path / name)
    path.write_bytes(path.read_bytes()[:200])
    error = error_of(read, path)
    assert error.message.startswith(f"'{path.name}' cannot be read: ")
    assert error.where.startswith(str(path))


def write_numbers(path, rows, types):
    """A FIF recording of the numbers in `rows`, one channel each: EEG, then event channels."""
    import mne

    names = [*NAMES, "STI 001", "STI 002", "STI101"][: len(rows)]
    info = mne.create_info(names, RATE_HZ, types)
    mne.io.RawArray(np.array(rows), info, verbose="error").save(path, verbose="error")
    return path


def test_a_channel_that_joins_event_lines_replaces_them(tmp_path):
    one, two = np.zeros((2, RATE_HZ * SECONDS))
    one[500:600], two[550:700] = 1, 1
    rows = [*all_waves() * 1e-6, one, two]
    types = ["eeg"] * len(NAMES) + ["stim"] * 2
    lines = events(write_numbers(tmp_path / "lines_raw.fif", rows, types))
    assert lines == [(500 / RATE_HZ, 0.0, "1"), (550 / RATE_HZ, 0.0, "1")]
    joined = events(
        write_numbers(tmp_path / "joined_raw.fif", [*rows, one + 2 * two], [*types, "stim"])
    )
    assert joined == [(n / RATE_HZ, 0.0, name) for n, name in ((500, "1"), (550, "3"), (600, "2"))]


@pytest.mark.parametrize("value", [np.nan, 1e24])
def test_a_recording_of_floats_with_impossible_values_is_refused(tmp_path, value):
    rows = all_waves() * 1e-6
    rows[3, RATE_HZ * 2] = value
    path = write_numbers(tmp_path / "a_raw.fif", rows, "eeg")
    assert error_of(read, path).where == str(path)
    write_fif(tmp_path / "b_raw.fif")
    found = read(tmp_path, on_bad="skip")
    assert {item.subject for item in found.items} == {"b_raw"} and found.facts["bad"] == 1
