from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from models.common import cache

MADE_FROM = {"version": 1, "seed": 0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))


class Maker:
    """Makes the same arrays each time, and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"events": np.arange(12).reshape(3, 4), "labels": np.ones(3, bool)}


def test_what_was_made_once_is_mapped_from_disk_the_second_time():
    make = Maker()
    first = cache.arrays("clips", MADE_FROM, make)
    second = cache.arrays("clips", MADE_FROM, make)
    assert make.calls == 1
    for name, array in make().items():
        assert np.array_equal(first[name], array) and np.array_equal(second[name], array)
        assert isinstance(second[name], np.memmap) and not second[name].flags.writeable


@pytest.mark.parametrize("other", [{"version": 2, "seed": 0}, {"version": 1, "seed": 1}])
def test_what_is_made_from_something_else_is_made_anew(other):
    make = Maker()
    cache.arrays("clips", MADE_FROM, make)
    cache.arrays("clips", other, make)
    cache.arrays("pages", MADE_FROM, make)
    assert make.calls == 3


@pytest.mark.parametrize("damage", ["facts", "array", "folder"])
def test_what_is_not_whole_is_made_anew(damage):
    make = Maker()
    cache.arrays("clips", MADE_FROM, make)
    [place] = cache.folder().iterdir()
    if damage == "facts":
        (place / "made_from.json").write_text("{")
    elif damage == "array":
        (place / "events.npy").write_bytes(b"\x93NUMPY")
    else:
        (place / "made_from.json").unlink()
    assert np.array_equal(cache.arrays("clips", MADE_FROM, make)["events"], make()["events"])
    assert [path.name for path in cache.folder().iterdir()] == [place.name]
    cache.arrays("clips", MADE_FROM, make)
    assert make.calls == 3  # the second one for this test itself


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "below"))
    make = Maker()
    for _ in range(2):
        assert np.array_equal(cache.arrays("clips", MADE_FROM, make)["labels"], np.ones(3, bool))
    assert make.calls == 2


@pytest.mark.skipif(sys.platform != "linux", reason="the place of caches on Linux")
def test_the_place_is_that_of_the_system_unless_a_variable_names_it(tmp_path, monkeypatch):
    assert cache.folder() == tmp_path / "cache"
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.folder() == Path("/somewhere/gearshift")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path("~/.cache/gearshift").expanduser()
