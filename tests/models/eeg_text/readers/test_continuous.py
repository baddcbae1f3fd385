import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gearshift.models.eeg_text import formats
from gearshift.models.eeg_text.config import Data
from gearshift.models.eeg_text.montage import SLOTS
from gearshift.models.eeg_text.readers import files
from tests.models.eeg_text.readers.writers import (
    NAMES,
    waves,
    write_brainvision,
    write_edf,
    write_eeglab,
)
from tests.models.errors import error_of

SAMPLE = Path(__file__).parents[5] / "shared/data/eeg"
needs_sample = pytest.mark.skipif(
    not SAMPLE.is_dir(), reason="the sample recordings are not beside this checkout"
)
FZ, OZ = SLOTS.index("E11"), SLOTS.index("E75")


@pytest.fixture
def recording(tmp_path):
    """40 s of 13 channels at 256 Hz, each a wave of 10 Hz."""
    return write_edf(tmp_path / "a.edf", NAMES, 40, make=waves)


def read(path, **data):
    return files.read(str(path), Data(**data), "encoder")


def test_a_recording_is_cut_into_windows_in_blocks_with_gaps_between(recording):
    found = read(recording)
    blocks = [item.group for item in found.items]
    assert len(blocks) == 25 - 2  # two windows are gaps
    assert blocks == sorted(blocks) and len(set(blocks)) == 3
    last, first = blocks.index("a.edf, block 2") - 1, blocks.index("a.edf, block 2")
    starts = [item.start_s for item in found.items]
    assert starts[first] - starts[last] == pytest.approx(2 * 1.6)
    assert {item.text for item in found.items} == {None}
    assert found.facts["format"] == formats.EDF


def test_runs_of_one_subject_are_one_group_and_one_reader(tmp_path):
    for number in range(10):
        for run in (1, 2):
            path = tmp_path / f"sub-{number}_run-{run}_eeg.edf"
            write_edf(path, NAMES, 4, make=lambda second, add=2 * number + run: waves(second) + add)
    found = read(tmp_path)
    subjects = [f"sub-{number}" for number in range(10)]
    assert sorted({item.group for item in found.items}) == subjects
    assert sorted({item.subject for item in found.items}) == subjects


@pytest.mark.parametrize(
    "write", [write_eeglab, write_brainvision, partial(write_edf, names=NAMES, seconds=20)]
)
def test_a_recording_under_two_names_is_read_once(tmp_path, write):
    suffix = {write_eeglab: ".set", write_brainvision: ".vhdr"}.get(write, ".edf")
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}{suffix}", **({} if suffix != ".edf" else {"make": waves}))
    samples = max(tmp_path.glob("c.*"), key=lambda path: path.stat().st_size)
    with samples.open("r+b") as file:  # of the same size, other samples
        file.seek(samples.stat().st_size // 2)
        file.write(bytes(32))
    found = read(tmp_path)
    assert {item.subject for item in found.items} == {"a", "c"}
    assert f"b{suffix}" in found.facts["copies"]
    used = files.read(str(tmp_path), Data(), "predict")
    assert {item.subject for item in used.items} == {"a", "b", "c"}


def test_readers_are_held_out_by_names_only(tmp_path):
    rows = "onset_s\tduration_s\ttext\n1\t1\tyes\n"
    options = {"split": "subject+sentence"}
    for number, name in enumerate(("sub-01_eeg", "sub-02_eeg", "monday")):
        path = tmp_path / f"{name}.edf"
        write_edf(path, NAMES, 4, make=lambda second, add=number: waves(second) + add)
        path.with_suffix(".tsv").write_text(rows)
        if name == "monday":
            error = error_of(read, tmp_path, **options)
            assert error.where == str(path) and "data.split=sentence" in error.fix
            assert len(read(tmp_path).items) == 3
        else:
            assert len(read(tmp_path, **options).items) == number + 1


def test_eeg_is_in_microvolts_at_500_hz_in_its_channels(recording):
    item = pickle.loads(pickle.dumps(read(recording).items))[5]
    eeg = item.load()
    assert eeg.shape == (800, 105) and eeg.dtype == np.float32
    assert len(item.channels) == len(NAMES)
    assert not np.delete(eeg, item.channels, axis=1).any()
    time = item.start_s + np.arange(800) / 500
    for number, slot in ((10, FZ), (11, SLOTS.index("Cz"))):
        expected = 20 * np.sin(2 * np.pi * 10 * time + number)
        # The band's edges are far away: what is left of the filters is less than a hundredth.
        np.testing.assert_allclose(eeg[:, slot], expected, atol=0.4)


def test_a_filter_sees_no_eeg_of_another_block_or_sentence(tmp_path):
    table = "onset_s\tduration_s\ttext\n8\t4\tA child\n14\t2\tThe old man.\n"
    for name, content in (("windows", ""), ("sentences", table)):
        loaded = []
        for artefact in (0.0, 500.0):
            folder = tmp_path / f"{name} {artefact}"
            folder.mkdir()

            def make(second, add=artefact):
                return waves(second) + add * (second < 12) * np.sin(second)

            path = write_edf(folder / "a.edf", NAMES, 28, make=make)
            if content:
                path.with_suffix(".tsv").write_text(content)
            items = read(path).items
            loaded.append([item.load() for item in items if item.start_s >= 14])
        assert len(loaded[0]) == (1 if content else 8)
        for plain, beside_artefact in zip(*loaded, strict=True):
            np.testing.assert_array_equal(plain, beside_artefact)


def test_drift_mains_and_fast_waves_are_filtered_out(tmp_path):
    def make(second):
        time = second + np.arange(512) / 512
        waves = [np.full(512, 300.0), 50 * np.sin(2 * np.pi * 50 * time), 50 * np.sin(2 * np.pi * 120 * time)]  # fmt: skip
        return np.array([*waves, 20 * np.sin(2 * np.pi * 10 * time)])

    path = write_edf(tmp_path / "a.edf", ["Fz", "Cz", "Pz", "Oz"], 30, 512, make)
    eeg = read(path).items[5].load()
    recorded = [FZ, SLOTS.index("Cz"), SLOTS.index("E62"), OZ]
    assert eeg[:, recorded[:3]].std(axis=0).max() < 0.6
    assert eeg[:, OZ].std() == pytest.approx(20 / np.sqrt(2), rel=0.05)


def test_a_table_beside_a_recording_provides_the_sentences(recording):
    rows = ["onset_s\tduration_s\ttext", "1.5\t2.0\tThe old man.", "10\t1\tA child", "20\t3\tthe OLD man"]  # fmt: skip
    recording.with_suffix(".tsv").write_text("\n".join(rows))
    found = read(recording)
    assert [item.text for item in found.items] == ["The old man.", "A child", "the OLD man"]
    assert [item.samples for item in found.items] == [1000, 500, 1500]
    assert found.items[0].group == found.items[2].group
    assert found.items[1].load().shape == (500, 105)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("38\t5\tthe man", "38 to 43 s has a gap, or ends after the recording"),
        ("5\t0.1\tthe man", "0.1 s is shorter than 0.128 s"),
        ("5\t1\t...", "the text has no words"),
        ("1\tx\ta", "duration_s 'x' is not a number"),
    ],
)
def test_an_impossible_row_is_an_error_or_skipped(recording, row, problem):
    table = recording.with_suffix(".tsv")
    table.write_text(f"onset_s\tduration_s\ttext\n1\t1\tyes\n{row}\n")
    assert error_of(read, recording).where == f"a.tsv:3: {problem}"
    found = read(recording, on_bad="skip")
    assert found.facts["bad"] == 1 and len(found.items) == 1


def test_unknown_channels_require_a_map_which_names_electrodes(tmp_path):
    path = write_edf(tmp_path / "a.edf", [f"X{i}" for i in range(13)], 5, make=waves)
    error = error_of(read, path)
    assert "0 of the 13 channels" in error.message and "unknown: X0, X1, " in error.message
    assert error.where == str(path)
    assert error.hint == "map them:  --set data.channels=FILE"
    positions = tmp_path / "map.csv"
    positions.write_text("channel,place\nx1,Fz\nX2,E70\nX3,O1\nX4,Oz\n")
    found = read(path, channels=str(positions))
    assert sorted(found.items[0].channels) == sorted([FZ, SLOTS.index("E70"), OZ])
    assert found.facts["channels"] == 3  # of two channels with one electrode, the first
    assert found.facts["channels_dropped"][-1] == "and 2 more"
    positions.write_text("channel,place\nX1,E700\n")
    error = error_of(read, path, channels=str(positions))
    assert error.where == f"data.channels, {positions}" and error.did_you_mean == "E70"


def test_a_low_sampling_rate_is_an_error_and_skipped_among_several(recording):
    path = write_edf(recording.with_name("b.edf"), NAMES, 40, 64, lambda second: waves(second, 64))
    error = error_of(read, path)
    assert error.where == str(path) and "64 Hz" in error.message
    found = read(recording.parent, on_bad="skip")
    assert {item.subject for item in found.items} == {"a"} and found.facts["bad"] == 1


@needs_sample
def test_the_eeglab_sample_is_read(tmp_path):
    found = read(SAMPLE / "eeglab_data.set")
    assert (found.facts["channels"], found.facts["channels_dropped"]) == (30, ["EOG1", "EOG2"])
    assert "notes" not in found.facts
    assert len({item.group for item in found.items}) == 17
    eeg = found.items[20].load()
    assert 5 < eeg[:, found.items[20].channels].std() < 100  # microvolts
    assert found.facts["format"] == formats.EEGLAB
