"""Recordings chosen by name, from folders in the layout of MVSEC."""

import json

import pytest

from launcher.__main__ import main
from models.base import DataError
from models.event_seg.splits import choose, choose_one
from tests.launcher.given import resolved
from tests.models.event_seg.writers import random_events, write_mvsec, write_raw

PATHS = ["indoor/indoor_flying1_data.hdf5", "night.raw", "outdoor/outdoor_day1_data.hdf5"]


@pytest.fixture
def mvsec(tmp_path, monkeypatch):
    """A function that writes a folder of sequences, each with its ground truth."""
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            folder = tmp_path / "mvsec" / name[:-1]
            folder.mkdir(parents=True, exist_ok=True)
            write_mvsec(folder / f"{name}_data.hdf5", frames=40, per_frame=60)
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
    assert choose_one(PATHS, name)[0] == PATHS[2:]


def test_names_choose_in_the_order_of_the_files_and_once():
    chosen, facts = choose(PATHS, ["outdoor_day1", "indoor_flying1", "outdoor_day1_data"])
    assert chosen == [PATHS[0], PATHS[2]]
    assert facts == {"sequences": f"2 of 3: {PATHS[0]}, {PATHS[2]} (data.sequences)"}


def test_an_unknown_name_is_an_error_with_all_names_and_the_nearest():
    with pytest.raises(DataError) as error:
        choose(PATHS, ["night", "outdor_day1"])
    assert str(error.value) == (
        "unknown recording 'outdor_day1'\n"
        "  where         data.sequences\n"
        "  allowed       indoor_flying1, night, outdoor_day1\n"
        "  did you mean  outdoor_day1\n"
        "  fix           --set 'data.sequences=[night, outdoor_day1]'"
    )


def test_a_name_of_several_recordings_is_an_error_with_a_name_for_each():
    paths = ["a.raw", "left/a.raw", "left/b.dat", "right/a.raw"]
    with pytest.raises(DataError) as error:
        choose(paths, ["a"])
    assert error.value.message == "3 recordings are called 'a'"
    assert error.value.allowed == "a.raw, left/a.raw, b, right/a.raw"
    assert choose(paths, error.value.allowed.split(", "))[0] == paths


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
    assert facts["sequences"] == (
        "1 of 4: outdoor_day/outdoor_day1_data.hdf5 (data.mvsec_sequence)"
    )
    assert "sequences 1 of 4: outdoor_day/outdoor_day1_data.hdf5" in capsys.readouterr().out


def test_lite_names_the_first_sequence_if_outdoor_day1_is_missing(mvsec, start):
    code, facts = start("--data", str(mvsec("indoor_flying2", "indoor_flying1")), "--lite")
    assert code == 0 and facts["sequences"] == (
        "1 of 2: indoor_flying/indoor_flying1_data.hdf5 (the first by name, because none is "
        "'outdoor_day1', data.mvsec_sequence)"
    )


def test_lite_keeps_the_named_sequences_and_other_formats(mvsec, start, make_task, tmp_path):
    folder = mvsec("outdoor_day1", "outdoor_day2")
    lite = ("--data", str(folder), "--lite")
    code, facts = start(*lite, "--set", "data.sequences=outdoor_day2")
    assert code == 0 and facts["sequences"].startswith("1 of 2: outdoor_day/outdoor_day2_data")
    preferred = resolved(model="event_seg", mode="lite").settings.data.mvsec_sequence
    (tmp_path / "raw").mkdir()
    for name in "abc":
        write_raw(tmp_path / "raw" / f"{name}.raw", random_events(900, 90_000))
    task = make_task(share=0.34, path=tmp_path / "raw", mvsec_sequence=preferred)
    task.setup()
    assert len(task.dataset.recordings) == 3 and "sequences" not in task.facts()
