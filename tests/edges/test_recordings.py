"""A recording is read as its own header says, or refused: rates, gaps, units, lengths, texts."""

import struct

import numpy as np
import pytest

from gearshift.models.base import DataError
from gearshift.models.common import data_files
from gearshift.models.common.recordings.files import open_recording
from gearshift.models.eeg_text.config import Data
from gearshift.models.eeg_text.montage import SLOTS
from gearshift.models.eeg_text.readers import files
from tests.edges.edf_files import HIGH, LOW, Signal, write_edf

RATE = 250
CZ, PZ = SLOTS.index("Cz"), SLOTS.index("E62")


def noise(rate=RATE, seconds=40, seed=0):
    return np.random.default_rng(seed).normal(0, 5, round(rate * seconds))


def sine(rate, seconds=40, microvolts=20.0):
    return microvolts * np.sin(2 * np.pi * 10 * np.arange(rate * seconds) / rate)


def samples(recording, pick=0):
    return recording.read([pick], 0, recording.pieces[-1].bounds(recording.rate_hz)[1])[0]


def test_of_channels_of_several_rates_those_of_the_fastest_are_read(tmp_path):
    signals = [
        Signal("Cz", 1000, sine(1000)),
        Signal("Pz", 250, sine(250)),
        Signal("Resp chest", 10, np.zeros(400)),
    ]
    path = write_edf(tmp_path / "a.edf", signals)
    found = files.read(str(path), Data(), "encoder")
    assert found.facts["channels_dropped"] == ["Pz", "Resp chest"]
    eeg = found.items[5].load()
    start = found.items[5].start_s
    expected = 20 * np.sin(2 * np.pi * 10 * (start + np.arange(800) / 500))
    np.testing.assert_allclose(eeg[:, CZ], expected, atol=0.4)
    with pytest.raises(DataError, match="is sampled at 250 Hz, and only those at 1000 Hz"):
        open_recording(path).check([1])


def test_channels_faster_than_the_eeg_leave_it_its_own_rate(tmp_path):
    signals = [
        Signal("EOG left", 1000, noise(1000)),
        Signal("Cz", RATE, sine(RATE)),
        Signal("Pz", RATE, -sine(RATE)),
        Signal("EOG left", 1000, noise(1000)),
        Signal("ECG-LA", 2000, noise(2000)),
        Signal("Sound", 8000, noise(8000)),
    ]
    path = write_edf(tmp_path / "a.edf", signals, [(3.0, 0.0, "event")])
    recording = open_recording(path)
    assert (recording.names, recording.rate_hz) == (["Cz", "Pz"], RATE)
    assert [event.onset_s for event in recording.events()] == [3.0]
    np.testing.assert_allclose(samples(recording, 1), -sine(RATE), atol=0.01)
    assert files.read(str(path), Data(), "encoder").facts["channels"] == 2
    # abr names the channel that it needs.
    assert open_recording(path, channel="Sound").rate_hz == 8000


@pytest.mark.parametrize("kind", ["EDF+D", "BDF+D"])
def test_a_recording_of_records_without_gaps_is_read(tmp_path, kind):
    # The clock of the first record is 0.5 s after the begin that the header names.
    starts = [0.5 + second for second in range(40)]
    events = [(0.5 + 2.5, 0.0, "event"), (0.5 + 30.5, 0.0, "event")]
    path = tmp_path / f"a.{kind[:3].lower()}"
    write_edf(path, [Signal("Cz", RATE, sine(RATE))], events, kind=kind, starts=starts)
    recording = open_recording(path)
    assert [event.onset_s for event in recording.events()] == pytest.approx([2.5, 30.5])
    assert [piece.seconds for piece in recording.pieces] == [40]
    np.testing.assert_allclose(samples(recording), sine(RATE), atol=0.01)
    starts[20] += 0.1
    write_edf(path, [Signal("Cz", RATE, sine(RATE))], events, kind=kind, starts=starts)
    with pytest.raises(DataError, match="records 20 and 21"):
        open_recording(path)


def test_a_new_epoch_in_the_status_of_biosemi_ends_a_piece(tmp_path):
    status = np.zeros(40 * RATE)
    for begin in (0, 9 * RATE + 30, 25 * RATE):
        status[begin : begin + 20] = 1 << 16
    status[5 * RATE : 5 * RATE + 10] += 3
    # The writer maps LOW to HIGH on 24 bits.
    scaled = LOW + (status + 2**23) / (2**24 - 1) * (HIGH - LOW)
    signals = [
        Signal("Cz", RATE, sine(RATE)),
        Signal("Status", RATE, scaled, "", -(2**23), 2**23 - 1),
    ]
    recording = open_recording(write_edf(tmp_path / "a.bdf", signals, kind="BDF+C"))
    assert [piece.start_s for piece in recording.pieces] == pytest.approx([0, 9 + 30 / RATE, 25])
    assert [(event.onset_s, event.name) for event in recording.events()] == [(5.0, "3")]


def test_channels_without_samples_are_no_signal(tmp_path):
    status = Signal("Status", 0, np.zeros(0), "")
    open_recording(
        write_edf(tmp_path / "a.bdf", [Signal("Cz", RATE, sine(RATE)), status], kind="BDF+C")
    )
    for kind in ("EDF+D", "BDF+D"):
        path = tmp_path / f"b.{kind[:3].lower()}"
        write_edf(path, [Signal("Cz", 0, np.zeros(0))], kind=kind, starts=[0.0, 1.0])
        with pytest.raises(DataError, match="no signal"):
            open_recording(path)


@pytest.mark.parametrize(("rate", "record_s"), [(200, 0.5), (60_000, 20.0)])
def test_records_of_any_length_with_annotations(tmp_path, rate, record_s):
    values = noise(rate, 20)
    events = [(0.05 + 0.25 * n, 0.0, "event") for n in range(9)]
    signals = [Signal("Cz", rate, values), Signal("Pz", rate, -values)]
    recording = open_recording(write_edf(tmp_path / "a.edf", signals, events, record_s=record_s))
    assert recording.names == ["Cz", "Pz"] and recording.end_s == pytest.approx(20)
    onsets = [event.onset_s for event in recording.events()]
    assert onsets == pytest.approx([onset for onset, *_ in events])
    expected = [-values[37:411], values[37:411]]
    np.testing.assert_allclose(recording.read([1, 0], 37, 411), expected, atol=0.01)


def test_values_are_microvolts_in_every_unit(tmp_path):
    values = noise(seconds=4)
    units = {"uV": 1, "mV": 1e3, "V": 1e6, "nV": 1e-3, "µV": 1, "Âµv": 1}
    for number, (unit, factor) in enumerate(units.items()):
        path = write_edf(tmp_path / f"{number}.edf", [Signal("Cz", RATE, values, unit)])
        recording, atol = open_recording(path), 0.01 * factor
        np.testing.assert_allclose(samples(recording), values * factor, rtol=0.01, atol=atol)
        assert recording.notes == (), unit


def write_gdf(path, rates, seconds=20):
    """A GDF 2.20 file of Cz, Pz, ... in microvolts, each with its rate; records of a second.

    Source: Schlögl, GDF: a general data format for biosignals, 2006.
    """
    names, count = ["Cz", "Pz", "Fz"][: len(rates)], len(rates)
    head = bytearray(256)
    head[:8] = b"GDF 2.20"
    struct.pack_into("<H", head, 184, count + 1)
    struct.pack_into("<qIIH", head, 236, seconds, 1, 1, count)
    columns = b"".join(name.encode().ljust(16) for name in names) + bytes(86 * count)
    columns += struct.pack(f"<{count}H", *[4275] * count)
    for limit in (-500.0, 500.0, -32768.0, 32767.0):
        columns += struct.pack(f"<{count}d", *[limit] * count)
    columns += (
        bytes(80 * count)
        + struct.pack(f"<{count}I", *rates)
        + struct.pack(f"<{count}I", *[3] * count)
    )
    record = b"".join(
        np.round(sine(rate, 1) / 1000 * 65535).astype("<i2").tobytes() for rate in rates
    )
    events = struct.pack("<If", 1, rates[0])  # a table of none: mode, count, rate
    path.write_bytes(head + columns + bytes(32 * count) + record * seconds + events)
    return path


def test_gdf_is_read_in_the_channels_of_its_fastest_rate(tmp_path):
    recording = open_recording(write_gdf(tmp_path / "a.gdf", [250, 250]))
    assert recording.rate_hz == 250
    np.testing.assert_allclose(samples(recording)[:250], sine(250, 1), atol=0.1)
    path = write_gdf(tmp_path / "b.gdf", [500, 125, 500])
    assert files.read(str(path), Data(), "encoder").facts["channels_dropped"] == ["Pz"]


def test_the_events_of_bids_are_the_sentences_of_a_recording(tmp_path):
    path = write_edf(
        tmp_path / "sub-01_eeg.edf", [Signal("Cz", RATE, noise()), Signal("Pz", RATE, noise())]
    )
    rows = "onset\tduration\ttrial_type\n2.0\tn/a\tthe old man\n4.0\t0\tn/a\n4.5\t0.5\ta child\n"
    (tmp_path / "sub-01_events.tsv").write_text(rows)
    found = files.read(str(path), Data(), "text")
    assert [(item.text, item.start_s) for item in found.items] == [
        ("the old man", 2.0),
        ("a child", 4.5),
    ]
    assert [item.samples for item in found.items] == [800, 250]


STATUS = "name\ttype\tunits\tstatus\nCz\tEEG\tuV\tgood\nPz\tEEG\tuV\tbad\nFz\tEEG\tuV\tn/a\n"


def read_with_status(folder, table):
    """A recording of Cz, Pz and Fz beside a table of channels."""
    signals = [Signal(name, RATE, noise()) for name in ("Cz", "Pz", "Fz")]
    path = write_edf(folder / "sub-01_eeg.edf", signals)
    (folder / "sub-01_channels.tsv").write_text(table)
    return files.read(str(path), Data(), "encoder").facts


def test_channels_that_bids_calls_bad_are_left_out_and_counted(tmp_path):
    facts = read_with_status(tmp_path, STATUS)
    assert facts["channels_dropped"] == ["Pz"]
    assert facts["notes"] == ["sub-01_eeg.edf: 1 channels are marked as bad: Pz"]


def test_a_bad_channel_that_does_not_exist_is_told(tmp_path):
    facts = read_with_status(tmp_path, STATUS.replace("Pz", "P9") + "Cz\n")
    assert "channels_dropped" not in facts
    absent, row = facts["notes"]
    assert "P9" in absent and "sub-01_channels.tsv:5" in row


def test_a_difference_of_two_electrodes_is_no_electrode(tmp_path):
    names = ["FP1-F7", "EEG T8-P8-0", "Fz", "C3-REF", "Pz-A1"]
    path = write_edf(tmp_path / "a.edf", [Signal(name, RATE, noise()) for name in names])
    found = files.read(str(path), Data(), "encoder")
    assert found.facts["channels_dropped"] == sorted(names[:2])
    assert any(
        "2 channels are differences of two electrodes" in note for note in found.facts["notes"]
    )


def test_eeglab_files_of_matlab_7_3_name_the_package_that_reads_them(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.set", "w") as file:
        file.create_group("EEG")
    installed = {"mne": True, "h5py": True}
    monkeypatch.setattr(data_files, "find_spec", installed.get)
    with pytest.raises(DataError) as raised:
        open_recording(tmp_path / "a.set")
    assert raised.value.fix == "pip install pymatreader"
