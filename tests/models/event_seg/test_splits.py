from types import SimpleNamespace

import numpy as np
import pytest

from models.base import DataError
from models.event_seg.readers.recording import spans
from models.event_seg.splits import split_recordings


def recording(name="a", windows=100, seconds=0.1, second=1e6):
    ends = np.arange(windows + 1) * seconds * second
    return SimpleNamespace(name=name, windows=spans(ends.astype(np.int64)), second=second)


def of(parts, recordings, name):
    """The windows of a split: (recording, start, stop) in seconds."""
    return [
        (number, *(recordings[number].windows[window] / recordings[number].second))
        for number, window in parts.windows[name]
    ]


def test_a_recording_is_in_one_split():
    recordings = [recording(f"r{i}", windows=5 + i) for i in range(10)]
    parts = split_recordings(recordings, 1.0, 0.2, seed=0)
    assert parts.method == "by recording"
    numbers = {name: {n for n, *_ in of(parts, recordings, name)} for name in parts.windows}
    assert [len(numbers[name]) for name in ("train", "val", "test")] == [6, 2, 2]
    assert set.union(*numbers.values()) == set(range(10))
    assert sum(map(len, parts.windows.values())) == sum(len(r.windows) for r in recordings)
    for name, held in parts.groups.items():
        assert {recordings[n].name for n in numbers[name]} == set(held)


def test_one_recording_is_cut_into_blocks_of_time_a_second_apart():
    recordings = [recording(windows=600, seconds=1 / 30)]
    parts = split_recordings(recordings, 1.0, 0.2, seed=0)
    train, val, test = (of(parts, recordings, name) for name in ("train", "val", "test"))
    assert len(val) == len(test) == 120 and len(train) > 270
    for before, after in ((train, val), (val, test)):
        assert before[-1][2] + 1.0 <= after[0][1] < before[-1][2] + 1.1
    assert "gap of 1 s" in parts.method and parts.groups["val"] == ["a from 11000000 to 15000000"]


def test_a_short_recording_leaves_a_window_between_blocks():
    recordings = [recording(windows=9, seconds=0.01)]
    parts = split_recordings(recordings, 1.0, 0.2, seed=0)
    assert [parts.windows[name][:, 1].tolist() for name in ("train", "val", "test")] == [
        [0, 1, 2, 3, 4],
        [6],
        [8],
    ]
    assert "gap of 1 window" in parts.method


def test_a_fraction_that_leaves_few_recordings_cuts_those_by_time():
    recordings = [recording(f"r{i}") for i in range(8)]
    parts = split_recordings(recordings, 0.25, 0.2, seed=0)
    used = {number for name in parts.windows for number, _ in parts.windows[name]}
    assert len(used) == 2
    assert all(len(set(windows[:, 0])) == 2 for windows in parts.windows.values())


def test_too_few_windows_are_an_error():
    with pytest.raises(DataError) as error:
        split_recordings([recording(windows=4)], 1.0, 0.2, seed=0)
    assert str(error.value) == (
        "'a' is too short to split by time: 4 windows in 0.4 s with eval.share=0.2\n"
        "  where         data.path, data.window_ms, eval.share\n"
        "  allowed       at least one window each for train, val and test, and one between them\n"
        "  fix           add recordings, or use shorter windows or a smaller eval.share"
    )
    with pytest.raises(DataError, match=r"3 recordings: eval.share=0.2 gives 0 for val"):
        split_recordings([recording(f"r{i}") for i in range(3)], 1.0, 0.2, seed=0)
