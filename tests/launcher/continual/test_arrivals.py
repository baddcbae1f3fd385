import os
import time

import pytest

from gearshift.launcher.continual.loop import Arrivals, list_files
from gearshift.launcher.run_folder.experiences import Experience, Ledger
from gearshift.launcher.run_folder.file_records import record_files

SETTLE = 5.0


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("first")
    os.utime(tmp_path / "a.txt", (1000, 1000))
    return tmp_path


def ledger_of(folder):
    return Ledger([Experience(0, record_files(folder, list_files(folder)), "trained", end_step=4)])


def scans(arrivals, known, *times):
    """The new files at these times from now on."""
    return [sorted(arrivals.new_files(known, time.time() + later, 1)) for later in times]


def test_files_unchanged_for_settle_s_are_first_data(folder):
    arrivals = Arrivals(folder, SETTLE, print)
    assert scans(arrivals, Ledger(), 0) == [[]]  # whatever its modification time is
    (folder / "b.txt").write_text("first")  # only a copy of known data is ignored
    assert scans(arrivals, Ledger(), SETTLE + 1) == [["a.txt", "b.txt"]]


def test_complete_files_wait_for_a_growing_one_but_not_for_ever(folder):
    first = (folder / "a.txt").stat().st_ctime
    last = first
    while last == first:  # clocks of file systems have steps of milliseconds
        (folder / "b.txt").write_text("grows")
        last = (folder / "b.txt").stat().st_ctime
    for share, expected in ((2, []), (20, ["a.txt"])):
        settle_s = (last - first) / share
        arrivals = Arrivals(folder, settle_s, print)
        assert [*arrivals.new_files(Ledger(), last + settle_s / 2, 1)] == expected


def test_new_files_are_returned_together_when_complete(folder):
    known, arrivals = ledger_of(folder), Arrivals(folder, SETTLE, print)
    scans(arrivals, known, 0, 10)
    assert arrivals.changed_at is None
    (folder / "b.txt").write_text("second")
    assert scans(arrivals, known, 0, SETTLE - 1, SETTLE + 1) == [[], [], ["b.txt"]]
    assert arrivals.changed_at < time.time() + 1  # the first scan with a new file
    (folder / "c.part").write_text("third")
    (folder / "c.part").rename(folder / "c.txt")
    assert scans(Arrivals(folder, SETTLE, print), known, 0, SETTLE + 1) == [
        [],
        ["b.txt", "c.txt"],
    ]


def test_a_changed_or_copied_file_is_noted_once_and_ignored(folder):
    notes = []
    known, arrivals = ledger_of(folder), Arrivals(folder, 0, notes.append)
    (folder / "copy.txt").write_text("first")
    os.utime(folder / "a.txt", (3000, 3000))  # the same content is no change
    assert scans(arrivals, known, 0, 1) == [[], []]
    assert notes == ["copy.txt has the same content as a.txt: ignored"]
    (folder / "a.txt").write_text("other")
    assert scans(arrivals, known, 2, 3) == [[], []]
    assert notes[1:] == ["a.txt changed after it was trained on: ignored"]


def test_files_are_named_by_their_path_and_hidden_or_unfinished_ones_ignored(tmp_path):
    names = ("a.part", "a.txt.tmp", "a.CRDOWNLOAD", ".a.txt", "a.txt~", ".git/a.txt", "x/.y/a.txt")
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        file = folder / name
        assert not list_files(folder)  # it is missing
        file.parent.mkdir(parents=True)
        file.write_text("a")
        assert not list_files(folder), name
        file.rename(folder / "whole.txt")
        assert list(list_files(folder)) == ["whole.txt"]
    inner = tmp_path / "all" / "b" / "c"
    inner.mkdir(parents=True)
    (inner / "d.txt").write_text("d")
    (tmp_path / "all" / "e.txt").symlink_to(tmp_path / "gone.txt")
    assert list(list_files(tmp_path / "all")) == ["b/c/d.txt"]
