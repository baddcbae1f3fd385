from __future__ import annotations

import os

import pytest

from launcher.continual import ledger
from launcher.continual.ledger import Experience, File, Ledger
from launcher.continual.watch import files
from training.storage import StorageError

FILE = File(3, 5, "x")


def experience(number, state="learnt", begun=0, ended=None):
    return Experience(number, {f"{number}.txt": FILE}, state, begun, ended)


BOOK = Ledger(
    [experience(0, ended=10), experience(1, begun=10, ended=20), experience(2, "training", 20)]
)


def test_what_was_saved_is_read_again(tmp_path):
    BOOK.save(tmp_path)
    assert ledger.load(tmp_path) == BOOK
    assert [path.name for path in tmp_path.iterdir()] == ["experiences.json"]


def test_a_run_without_one_has_none(tmp_path):
    assert ledger.load(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "{}", '{"experiences": [1]}', '{"experiences": [{"files": {}}]}']
)
def test_what_is_no_ledger_is_a_fault_that_names_the_file(tmp_path, text):
    (tmp_path / ledger.NAME).write_text(text)
    with pytest.raises(StorageError, match=r"experiences\.json"):
        ledger.load(tmp_path)


def test_the_files_of_a_refused_experience_are_not_taken():
    book = BOOK.with_(experience(2, "refused", 20))
    assert list(book.taken()) == ["0.txt", "1.txt"]
    assert book.refused.number == 2 and book.under_way is None
    assert book.next_number == 3


@pytest.mark.parametrize(
    ("step", "states"),
    [
        (25, ["learnt", "learnt", "training"]),
        (20, ["learnt", "learnt"]),
        (15, ["learnt", "training"]),
        (10, ["learnt"]),
        (5, ["training"]),
    ],
)
def test_a_run_that_goes_on_from_an_earlier_step_has_not_learnt_what_came_later(step, states):
    assert [one.state for one in BOOK.back_to(step).experiences] == states


def test_a_file_is_known_by_its_content_and_not_by_its_time(tmp_path):
    for name, text in (("a", "one"), ("b", "two"), ("c", "three"), ("d", "four")):
        (tmp_path / name).write_text(text)
    taken = ledger.take(tmp_path, files(tmp_path))
    os.utime(tmp_path / "a", ns=(7, 7))
    (tmp_path / "b").write_text("owt")
    os.utime(tmp_path / "b", ns=(7, 7))
    (tmp_path / "c").unlink()
    assert list(ledger.changed(tmp_path, taken)) == ["b", "c"]


def test_a_large_file_is_known_by_stretches_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "_WHOLE", 64)
    monkeypatch.setattr(ledger, "_PROBE", 4)
    path = tmp_path / "a"
    path.write_bytes(bytes(range(200)))
    first = ledger.digest_of(path, 200)
    path.write_bytes(bytes(range(199)) + b"x")
    assert ledger.digest_of(path, 200) != first
    assert ledger.digest_of(path, 199) != first


def test_a_file_that_changes_while_it_is_taken_is_left(tmp_path):
    (tmp_path / "a").write_text("one")
    seen = files(tmp_path)
    (tmp_path / "a").write_text("longer")
    assert ledger.take(tmp_path, seen) == {}
