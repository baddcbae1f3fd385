import json
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest

from gearshift.launcher.__main__ import main
from gearshift.models.common.split import SplitRule
from gearshift.models.event_seg.readers.recording import spans
from gearshift.models.event_seg.splits import choose, split_recordings
from tests.models.errors import error_of
from tests.models.event_seg.writers import write_mvsec

Parts = namedtuple("Parts", "groups windows method")


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
    parts = Parts(*split_recordings(recordings, SplitRule(0.2)))
    assert parts.method == "by recording"
    numbers = {name: {n for n, *_ in of(parts, recordings, name)} for name in parts.windows}
    assert [len(numbers[name]) for name in ("train", "val", "test")] == [6, 2, 2]
    assert set.union(*numbers.values()) == set(range(10))
    assert sum(map(len, parts.windows.values())) == sum(len(r.windows) for r in recordings)
    for name, held in parts.groups.items():
        assert {recordings[n].name for n in numbers[name]} == set(held)


def test_one_recording_is_cut_into_blocks_of_time_a_second_apart():
    recordings = [recording(windows=600, seconds=1 / 30)]
    parts = Parts(*split_recordings(recordings, SplitRule(0.2)))
    train, val, test = (of(parts, recordings, name) for name in ("train", "val", "test"))
    assert len(val) == len(test) == 120 and len(train) > 270
    for before, after in ((train, val), (val, test)):
        assert before[-1][2] + 1.0 <= after[0][1] < before[-1][2] + 1.1
    assert "gap of 1 s" in parts.method and parts.groups["val"] == ["a from 11000000 to 15000000"]


def test_recordings_that_are_split_by_time_have_no_folds():
    error = error_of(split_recordings, [recording(windows=600)], SplitRule(0.2, fold="1/2"))
    assert str(error) == (
        "data.fold 1/2 cannot be cut: fewer than 3 recordings are split by time\n"
        "  where         data.fold\n"
        "  allowed       data that is split by one kind of group\n"
        "  hint          use more recordings"
    )


def test_a_short_recording_leaves_a_window_between_blocks():
    recordings = [recording(windows=9, seconds=0.01)]
    parts = Parts(*split_recordings(recordings, SplitRule(0.2)))
    assert [parts.windows[name][:, 1].tolist() for name in ("train", "val", "test")] == [
        [0, 1, 2, 3, 4],
        [6],
        [8],
    ]
    assert "gap of 1 window" in parts.method


PATHS = ["indoor/indoor_flying1_data.hdf5", "night.raw", "outdoor/outdoor_day1_data.hdf5"]


@pytest.fixture
def mvsec(tmp_path, monkeypatch):
    """A function that writes a folder of sequences, each with its ground truth."""
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for number, name in enumerate(names):
            folder = tmp_path / "mvsec" / name[:-1]
            folder.mkdir(parents=True, exist_ok=True)
            write_mvsec(folder / f"{name}_data.hdf5", frames=40, per_frame=60, begin=1.5e9 + number)
            write_mvsec(folder / f"{name}_gt.hdf5", frames=2)
        return tmp_path / "mvsec"

    return make


@pytest.fixture
def start(tmp_path):
    """Train for two steps; gives the exit code and the facts of the data."""

    def run(*arguments):
        always = ["--max-steps", "2", "--out", "run", "--set", "loader.workers=0"]
        code = main(["--model", "event_seg:tiny", "--engine", "local", *always, *arguments])
        result = tmp_path / "run" / "result.json"
        return code, json.loads(result.read_text())["data"] if result.exists() else {}

    return run


@pytest.mark.parametrize(
    "name", ["outdoor_day1", "outdoor_day1_data", "outdoor_day1_data.hdf5", PATHS[2]]
)
def test_a_name_is_that_of_a_sequence_a_file_or_a_path(name):
    assert choose(PATHS, [name, "night"])[0] == PATHS[1:]
    assert choose(PATHS, [], name)[0] == PATHS[2:]


def test_only_the_chosen_recordings_are_opened(mvsec, start):
    folder = mvsec("outdoor_day1", "outdoor_day2", "outdoor_night1")
    (folder / "outdoor_day" / "outdoor_day2_data.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n broken")
    names = "data.sequences=outdoor_day1,outdoor_night1"
    code, facts = start("--data", str(folder), "--set", names)
    assert code == 0 and facts["groups"] == {"train": 2, "val": 2, "test": 2}
    assert facts["sequences"].startswith("2 of 3: outdoor_day/outdoor_day1_data.hdf5, outdoor_n")


def test_lite_trains_on_outdoor_day1_alone(mvsec, start, capsys):
    folder = mvsec("indoor_flying1", "outdoor_day1", "outdoor_day2", "outdoor_night1")
    code, facts = start("--data", str(folder), "--lite")
    assert code == 0 and facts["samples"] == {"train": 23, "val": 7, "test": 7}
    assert facts["sequences"].startswith("1 of 4: outdoor_day/outdoor_day1_data.hdf5 (")
    assert facts["sensor"] == "52×69 (from frames), downsampled by 2, samples of 26×34"
    assert "sequences 1 of 4: outdoor_day/outdoor_day1_data.hdf5" in capsys.readouterr().out
