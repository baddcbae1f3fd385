"""A recording is read as its own header says, or refused: rates, gaps, units, lengths, texts."""

import struct

import numpy as np
import pytest

from models.base import DataError
from models.common.recordings.files import open_recording
from models.eeg_text.montage import SLOTS
from models.eeg_text.readers import continuous
from models.eeg_text.recordings import ReadingOptions
from tests.edges.edf_files import Signal, write_edf
from tests.models.eeg_text.readers.writers import write_brainvision

RATE = 250
CZ, PZ = SLOTS.index("Cz"), SLOTS.index("E62")


def noise(rate=RATE, seconds=40, seed=0):
    return np.random.default_rng(seed).normal(0, 5, round(rate * seconds))


def sine(rate, seconds=40, microvolts=20.0):
    return microvolts * np.sin(2 * np.pi * 10 * np.arange(rate * seconds) / rate)


def samples(recording, pick=0):
    return recording.read([pick], 0, recording.pieces[-1].bounds(recording.rate_hz)[1])[0]


def error_of(path, **reading):
    with pytest.raises(DataError) as error:
        continuous.read(path, ReadingOptions(**reading))
    return error.value


def test_of_channels_of_several_rates_those_of_the_fastest_are_read(tmp_path):
    signals = [
        Signal("Cz", 1000, sine(1000)),
        Signal("Pz", 250, sine(250)),
        Signal("Resp chest", 10, np.zeros(400)),
    ]
    path = write_edf(tmp_path / "a.edf", signals)
    found = continuous.read(path, ReadingOptions())
    assert found.notes["channels_dropped"] == ["Pz", "Resp chest"]
    eeg = found.items[9].load()
    start = found.items[9].start_s
    expected = 20 * np.sin(2 * np.pi * 10 * (start + np.arange(800) / 500))
    np.testing.assert_allclose(eeg[:, CZ], expected, atol=0.4)
    with pytest.raises(DataError, match="is sampled at 250 Hz, and only those at 1000 Hz"):
        open_recording(path).check([1])


@pytest.mark.parametrize(
    ("rate", "record_s", "place", "channels"),
    [(200, 0.1, 0, 1), (200, 0.1, 2, 2), (200, 0.5, 1, 2), (200, 2.0, 0, 2), (60_000, 20.0, 2, 1)],
)
def test_records_of_any_length_with_annotations_anywhere(tmp_path, rate, record_s, place, channels):
    values = noise(rate, 20)
    events = [(0.05 + 0.25 * n, 0.0, "event") for n in range(60 if rate == 200 else 9)]
    signals = [Signal("Cz", rate, values), Signal("Pz", rate, -values)]
    where = {"place": place, "channels": channels}
    path = write_edf(tmp_path / "a.edf", signals, events, record_s=record_s, **where)
    recording = open_recording(path)
    assert recording.names == ["Cz", "Pz"] and recording.end_s == pytest.approx(20)
    onsets = [event.onset_s for event in recording.events()]
    assert onsets == pytest.approx([onset for onset, *_ in events])
    np.testing.assert_allclose(samples(recording), values, atol=0.01)
    expected = [-values[37:411], values[37:411]]
    np.testing.assert_allclose(recording.read([1, 0], 37, 411), expected, atol=0.01)


def edf(folder, change=None, events=(), signal=None, name="a.edf", **options):
    """Ten seconds of Cz, whose bytes are changed."""
    signal = signal or Signal("Cz", RATE, noise(seconds=10))
    path = write_edf(folder / name, [signal], events, **options)
    if change:
        path.write_bytes(change(path.read_bytes()))
    return path


WORDS = [(n + 0.5, 0.0, "word") for n in range(9)]


def test_a_recording_that_was_not_closed_is_read_to_its_end(tmp_path):
    for change, end_s in ((None, 10), (lambda data: data[:-100], 9)):
        recording = open_recording(edf(tmp_path, change, records=-1))
        assert recording.end_s == end_s and len(recording.notes) == 1
        np.testing.assert_allclose(samples(recording), noise(seconds=10)[: end_s * RATE], atol=0.01)


def test_annotations_in_latin_1_are_read_with_a_note(tmp_path):
    recording = open_recording(edf(tmp_path, events=[(1.5, 0.0, "frère")], encoding="latin-1"))
    assert [event.name for event in recording.events()] == ["frère"]
    assert recording.notes == ("its annotations are read as cp1252",)


REFUSED = {
    "gaps": {"kind": "EDF+D", "starts": [1.5 * n for n in range(10)]},
    "annotations only": {"signal": Signal("EDF Annotations", RATE, np.zeros(RATE))},
    "changed line ends": {"events": WORDS, "change": lambda data: data.replace(b"\n", b"\r\n")},
    "truncated": {"change": lambda data: data[:-1000]},
    "more records than the header names": {"records": 8},
    **{
        f"a scale from {low!r} to {high!r}": {
            "signal": Signal("Cz", RATE, noise(seconds=10), low=low, high=high)
        }
        for low, high in ((0, 0), (5, 5), ("", ""), ("nan", 3))
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_an_error_with_its_file(tmp_path, name):
    path = edf(tmp_path, **REFUSED[name])
    error = error_of(path)
    assert path.name in error.message and error.where == str(path) and error.allowed and error.fix


def test_values_are_microvolts_in_every_unit(tmp_path):
    values = noise(seconds=4)
    units = {"uV": 1, "mV": 1e3, "V": 1e6, "nV": 1e-3, "µV": 1, "Âµv": 1}
    for number, (unit, factor) in enumerate(units.items()):
        path = write_edf(tmp_path / f"{number}.edf", [Signal("Cz", RATE, values, unit)])
        recording, atol = open_recording(path), 0.01 * factor
        np.testing.assert_allclose(samples(recording), values * factor, rtol=0.01, atol=atol)
        assert recording.notes == (), unit


def test_a_channel_without_a_unit_is_read_in_that_of_the_setting(tmp_path):
    path = write_edf(tmp_path / "a.edf", [Signal("Cz", RATE, noise(seconds=4), "")])
    assert open_recording(path).notes == ("1 channels name no unit and are not read: Cz",)
    with pytest.raises(DataError) as error:
        open_recording(path).check([0])
    assert "--set data.unit=uV" in error.value.fix
    expected = 1e3 * noise(seconds=4)
    np.testing.assert_allclose(samples(open_recording(path, "mV")), expected, rtol=0.01, atol=10)


def test_triggers_of_biosemi_are_the_lower_16_bits(tmp_path):
    status = np.full(RATE * 10, 0x640000, dtype=np.int64)  # its own state
    status[500:510] |= 7
    status[1000:1010] |= 0x8003
    status[0] |= 0x10000
    path = write_edf(
        tmp_path / "a.bdf",
        [Signal("Cz", RATE, noise(seconds=10)), Signal("Status", RATE, status, "Boolean")],
        kind="BDF",
    )
    recording = open_recording(path)
    assert [(e.onset_s, e.name) for e in recording.events()] == [(2.0, "7"), (4.0, "32771")]
    assert recording.names == ["Cz", "Status"] and recording.notes == ()


def write_gdf(path, rates, version=b"GDF 2.20", seconds=20):
    """A GDF file of Cz, Pz, ... in microvolts, each with its rate; records of a second.

    Source: Schlögl, GDF: a general data format for biosignals, 2006.
    """
    names, count = ["Cz", "Pz", "Fz"][: len(rates)], len(rates)
    head = bytearray(256)
    head[:8] = version
    if version >= b"GDF 2":
        struct.pack_into("<H", head, 184, count + 1)
        struct.pack_into("<qIIH", head, 236, seconds, 1, 1, count)
    else:
        head[168:184] = b"2025010100000000"
        struct.pack_into("<q", head, 184, 256 * (count + 1))
        struct.pack_into("<qIII", head, 236, seconds, 1, 1, count)
    digital = "d" if version >= b"GDF 2" else "q"
    columns = b"".join(name.encode().ljust(16) for name in names) + bytes(80 * count)
    if version >= b"GDF 2":
        columns += bytes(6 * count) + struct.pack(f"<{count}H", *[4275] * count)
    else:
        columns += b"uV      " * count
    columns += struct.pack(f"<{count}d", *[-500.0] * count) + struct.pack(f"<{count}d", *[500.0] * count)
    columns += struct.pack(f"<{count}{digital}", *[-32768] * count)
    columns += struct.pack(f"<{count}{digital}", *[32767] * count) + bytes(80 * count)
    columns += struct.pack(f"<{count}I", *rates) + struct.pack(f"<{count}I", *[3] * count)
    body = b"".join(
        np.round(sine(rate, 1) / 1000 * 65535).astype("<i2").tobytes()
        for _ in range(seconds)
        for rate in rates
    )
    # A table of no events: mode, rate, count; since 2.0 mode, count, rate.
    events = struct.pack("<If", 1, rates[0]) if version >= b"GDF 2" else struct.pack("<II", 1, 0)
    path.write_bytes(head + columns + bytes(32 * count) + body + events)
    return path


@pytest.mark.parametrize("version", [b"GDF 1.25", b"GDF 2.20"])
def test_gdf_with_one_rate_is_read_and_with_several_only_in_those_of_the_fastest(tmp_path, version):
    recording = open_recording(write_gdf(tmp_path / "a.gdf", [250, 250], version))
    assert recording.rate_hz == 250
    np.testing.assert_allclose(samples(recording)[:250], sine(250, 1), atol=0.1)
    path = write_gdf(tmp_path / "b.gdf", [500, 125, 500], version)
    assert continuous.read(path, ReadingOptions()).notes["channels_dropped"] == ["Pz"]
    places = tmp_path / "map.json"
    places.write_text('{"Pz": "Cz"}')
    assert error_of(path, channels=str(places)).message == (
        "channel 'Pz' of 'b.gdf' is sampled at 125 Hz, and only those at 500 Hz can be read"
    )


def test_brainvision_markers_are_utf_8_or_refused(tmp_path):
    path = write_brainvision(tmp_path / "a.vhdr")
    markers = path.with_suffix(".vmrk")
    text = markers.read_text().replace("word", "frère")
    markers.write_text(text, encoding="utf-8")
    recording = open_recording(path)
    assert {event.name for event in recording.events()} == {"Comment/frère", "Comment/pause"}
    assert recording.files == (path.with_suffix(".eeg"),) and samples(recording).std() > 10
    markers.write_text(text, encoding="latin-1")
    path.write_text(path.read_text() + "\n")  # it is read again
    assert error_of(path).where == str(path)


def test_a_pause_of_a_recording_is_a_gap(tmp_path):
    path = write_brainvision(tmp_path / "a.vhdr")
    marks = path.with_suffix(".vmrk")
    marks.write_text(marks.read_text() + "Mk9=New Segment,,2561,1,0,20250101000000000000\n")
    pieces = open_recording(path).pieces
    assert [(piece.start_s, piece.seconds) for piece in pieces] == [(0, 10), (10, 10)]
