from __future__ import annotations

import os

import pytest

from launcher.continual import ledger
from launcher.continual.arrivals import Arrivals
from launcher.continual.ledger import Experience, Ledger
from launcher.continual.watch import files

SETTLE = 5.0


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("first")
    os.utime(tmp_path / "a.txt", (1000, 1000))
    return tmp_path


def book(folder) -> Ledger:
    return Ledger([Experience(0, ledger.take(folder, files(folder)), "learnt", ended_at=4)])


def looks(arrivals, known, *times):
    return [sorted(arrivals.new(known, now)) for now in times]


def test_the_first_data_is_what_is_there_and_old_files_need_no_second_look(folder):
    found = Arrivals(folder, SETTLE, 1).first(now=0, wall=2000)
    assert list(found) == ["a.txt"]


def test_a_beginning_waits_for_files_that_were_just_written(folder):
    (folder / "b.txt").write_text("second")
    os.utime(folder / "b.txt", (1999, 1999))
    arrivals = Arrivals(folder, SETTLE, 1)
    assert arrivals.first(0, 2000) is None
    assert list(arrivals.first(SETTLE, 2000 + SETTLE)) == ["a.txt", "b.txt"]


def test_an_empty_folder_gives_nothing_to_begin_with(tmp_path):
    assert Arrivals(tmp_path, SETTLE, 1).first(0, 2000) == {}


def test_new_files_are_taken_when_they_are_complete(folder):
    known, arrivals = book(folder), Arrivals(folder, SETTLE, 1)
    (folder / "b.txt").write_text("second")
    assert looks(arrivals, known, 0, 4, 5) == [[], [], ["b.txt"]]


def test_files_that_come_together_are_taken_together(folder):
    known, arrivals = book(folder), Arrivals(folder, SETTLE, 1)
    (folder / "b.txt").write_text("second")
    assert looks(arrivals, known, 0) == [[]]
    (folder / "c.txt").write_text("third")
    assert looks(arrivals, known, 4, 6, 9) == [[], [], ["b.txt", "c.txt"]]


def test_a_file_that_is_written_without_end_keeps_the_others_waiting_for_a_while_only(folder):
    known, arrivals = book(folder), Arrivals(folder, SETTLE, 1)
    (folder / "b.txt").write_text("second")
    found = []
    for now in range(0, 80, 2):
        (folder / "log.txt").write_text("x" * now)
        found.append((now, sorted(arrivals.new(known, now))))
    first = next(pair for pair in found if pair[1])
    assert first == (6 + 10 * SETTLE, ["b.txt"])


def test_fewer_files_than_make_an_experience_wait(folder):
    known, arrivals = book(folder), Arrivals(folder, 0, 2)
    (folder / "b.txt").write_text("second")
    assert looks(arrivals, known, 0, 99) == [[], []]
    (folder / "c.txt").write_text("third")
    assert looks(arrivals, known, 100) == [["b.txt", "c.txt"]]


def test_a_file_that_changed_since_it_was_learnt_is_told_once_and_left(folder):
    known, arrivals = book(folder), Arrivals(folder, 0, 1)
    (folder / "a.txt").write_text("other")
    assert looks(arrivals, known, 0, 1, 2) == [[], [], []]
    assert arrivals.notes == ["a.txt has changed since it was learnt: not learnt again"]


def test_another_time_with_the_same_content_is_no_change(folder):
    known, arrivals = book(folder), Arrivals(folder, 0, 1)
    os.utime(folder / "a.txt", (3000, 3000))
    assert looks(arrivals, known, 0, 1) == [[], []]
    assert arrivals.notes == []


def test_a_copy_of_what_was_learnt_is_told_once_and_left(folder):
    known, arrivals = book(folder), Arrivals(folder, 0, 1)
    (folder / "copy.txt").write_text("first")
    assert looks(arrivals, known, 0, 1) == [[], []]
    assert arrivals.notes == ["copy.txt holds what a.txt does: not learnt again"]


def test_files_of_a_refused_experience_come_again_with_the_next_ones(folder):
    known, arrivals = book(folder), Arrivals(folder, 0, 1)
    (folder / "b.txt").write_text("second")
    found = arrivals.new(known, 0)
    known = known.with_(Experience(1, found, "refused", reason="too few"))
    assert looks(arrivals, known, 1, 2) == [[], []]
    (folder / "c.txt").write_text("third")
    assert looks(arrivals, known, 3) == [["b.txt", "c.txt"]]


def test_when_something_new_was_seen_is_known(folder):
    known, arrivals = book(folder), Arrivals(folder, SETTLE, 1)
    looks(arrivals, known, 0, 10)
    assert arrivals.changed_at is None
    (folder / "b.txt").write_text("second")
    looks(arrivals, known, 20, 21)
    assert arrivals.changed_at == 20
