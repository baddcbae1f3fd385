from __future__ import annotations

import os

import pytest

from launcher.continual.watch import Watch


def test_a_file_that_grows_is_complete_only_when_it_stays_as_it_is(tmp_path):
    watch, file = Watch(tmp_path, settle_s=5), tmp_path / "a.txt"
    file.write_text("a")
    assert list(watch.look(0).growing) == ["a.txt"]
    file.write_text("ab")
    assert list(watch.look(5).growing) == ["a.txt"]
    assert list(watch.look(9).growing) == ["a.txt"]
    assert list(watch.look(10).complete) == ["a.txt"]


def test_a_file_that_is_written_again_without_growing_is_not_complete(tmp_path):
    watch, file = Watch(tmp_path, settle_s=5), tmp_path / "a.txt"
    file.write_text("a")
    watch.look(0)
    file.write_text("b")
    os.utime(file, ns=(1, 1))
    assert not watch.look(6).complete
    assert watch.look(11).complete


def test_a_complete_file_that_changes_is_growing_again(tmp_path):
    watch, file = Watch(tmp_path, settle_s=1), tmp_path / "a.txt"
    file.write_text("a")
    watch.look(0)
    assert watch.look(1).complete
    file.write_text("abc")
    assert list(watch.look(2).growing) == ["a.txt"]


@pytest.mark.parametrize(
    "name", ["a.part", "a.txt.tmp", "a.CRDOWNLOAD", ".a.txt", "a.txt~", ".git/a.txt", "x/.y/a.txt"]
)
def test_files_with_the_name_of_an_unfinished_one_are_not_looked_at(tmp_path, name):
    watch, file = Watch(tmp_path, settle_s=0), tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a")
    seen = watch.look(0)
    assert not seen.complete and not seen.growing
    file.rename(tmp_path / "whole.txt")
    assert list(watch.look(1).complete) == ["whole.txt"]


def test_folders_are_looked_through_and_files_named_by_their_path(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "d.txt").write_text("d")
    (tmp_path / "e.txt").symlink_to(tmp_path / "gone.txt")
    watch = Watch(tmp_path, settle_s=0)
    assert list(watch.look(0).complete) == ["b/c/d.txt"]


def test_a_folder_that_has_gone_holds_nothing(tmp_path):
    assert not Watch(tmp_path / "gone", 0).look(0).complete
