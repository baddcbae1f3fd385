"""Records of data files: what counts as a change of the data of a run, and what does not."""

import os
import shutil

import pytest

from gearshift.launcher.continual.loop import list_files
from gearshift.launcher.run_folder import file_records
from gearshift.launcher.run_folder.file_records import changed_files, data_digests, record_files


def test_a_change_of_content_is_detected_and_a_change_of_time_ignored(tmp_path):
    for name, text in (("a", "one"), ("b", "two"), ("c", "three"), ("d", "four")):
        (tmp_path / name).write_text(text)
    taken = record_files(tmp_path, list_files(tmp_path))
    os.utime(tmp_path / "a", ns=(7, 7))
    (tmp_path / "b").write_text("owt")
    os.utime(tmp_path / "b", ns=(7, 7))
    (tmp_path / "c").unlink()
    assert list(changed_files(tmp_path, taken)) == ["b", "c"]


@pytest.fixture
def data(tmp_path):
    """A folder of data, with a run in it and a hidden file."""
    folder = tmp_path / "data"
    for name in ("a.edf", "b/c.edf", "runs/x/origins.json", "runs/x/checkpoints/s", "b/.hidden"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 100)
    return folder


def test_every_byte_of_the_data_counts_and_neither_times_nor_its_place(data, tmp_path):
    first = data_digests({"data.path": data})
    assert list(first) == ["data.path/a.edf", "data.path/b/c.edf"]
    shutil.copytree(data, tmp_path / "moved")
    (tmp_path / "moved/runs/x/checkpoints/s").write_text("later")
    (tmp_path / "moved/b/.hidden").unlink()
    assert data_digests({"data.path": tmp_path / "moved"}) == first
    content = bytearray((data / "a.edf").read_bytes())
    content[250] ^= 1
    (data / "a.edf").write_bytes(content)
    now = data_digests({"data.path": data})
    assert [name for name in first if now[name] != first[name]] == ["data.path/a.edf"]


def test_a_single_file_has_its_companions(tmp_path):
    names = ("s_eeg.vhdr", "s_eeg.eeg", "s_events.tsv", "s_eeg-1.vhdr", "s_eeg.log", "s_eegs.vhdr")
    for name in names:
        (tmp_path / name).write_text(name)
    digests = data_digests({"data.path": tmp_path / names[0]})
    beside = ("_eeg-1.vhdr", "_eeg.eeg", "_events.tsv")
    assert list(digests) == ["data.path", *(f"data.path{rest}" for rest in beside)]
    assert data_digests({"data.path": tmp_path / "absent"}) is None


def test_above_the_budget_an_equal_share_of_each_file_is_read(data, monkeypatch):
    monkeypatch.setattr(file_records, "_BUDGET_BYTES", 2**15)
    for name in ("a.edf", "b/c.edf"):
        (data / name).write_bytes(bytes(10**6))
    first = data_digests({"data.path": data})
    with (data / "a.edf").open("r+b") as file:  # between two pieces
        file.seek(10**5)
        file.write(b"x")
    assert data_digests({"data.path": data}) == first
    with (data / "a.edf").open("r+b") as file:
        file.write(b"x")
    assert data_digests({"data.path": data}) != first
