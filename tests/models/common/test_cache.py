import numpy as np
import pytest

from gearshift.models.base import DataError
from gearshift.models.common import array_file, cache
from gearshift.models.common.array_file import ArrayFile
from gearshift.models.common.data_files import CACHE_VARIABLE, cache_folder

SOURCE_KEY = {"version": 1, "seed": 0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


class Maker:
    """Makes the same arrays each time, and counts the calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"events": np.arange(12).reshape(3, 4), "labels": np.ones(3, bool)}


def test_cached_arrays_are_mapped_from_disk_the_second_time():
    make = Maker()
    first = cache.arrays("clips", SOURCE_KEY, make)
    second = cache.arrays("clips", SOURCE_KEY, make)
    assert make.calls == 1
    for name, array in make().items():
        assert np.array_equal(first[name], array) and np.array_equal(second[name], array)
        assert isinstance(second[name], np.memmap) and not second[name].flags.writeable
    make = Maker()
    for other in (SOURCE_KEY | {"version": 2}, SOURCE_KEY | {"seed": 1}):
        cache.arrays("clips", other, make)
    cache.arrays("pages", SOURCE_KEY, make)
    assert make.calls == 3


def test_what_a_killed_process_wrote_is_removed_and_what_another_writes_is_kept():
    cache.arrays("clips", SOURCE_KEY, Maker())
    [entry] = cache_folder().iterdir()
    dead, alive = (entry.with_name(f".{entry.name}-{name}") for name in ("dead", "alive"))
    for folder in (dead, alive):
        folder.mkdir()
    (entry / "made_from.json").unlink()
    with cache._locked(alive):
        cache.arrays("clips", SOURCE_KEY, Maker())
    assert {path.name for path in cache_folder().iterdir()} == {entry.name, alive.name}


def test_without_a_cache_arrays_stay_in_memory_and_a_stream_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "below"))
    make = Maker()
    for _ in range(2):
        assert np.array_equal(cache.arrays("clips", SOURCE_KEY, make)["labels"], np.ones(3, bool))
    assert make.calls == 1
    with pytest.raises(DataError, match="cannot write the cache: Not a directory") as error:
        cache.streamed("rows", SOURCE_KEY, Writer(), 10**9)
    assert error.value.allowed == "a writable folder with about 2 GB of free space"


class Writer:
    """Writes two vectors piece by piece, and counts the calls; `error` is raised in the middle."""

    def __init__(self, error=None):
        self.calls, self.error = 0, error

    def __call__(self, new):
        self.calls += 1
        counts, empty = ArrayFile(new("counts"), np.uint16), ArrayFile(new("empty"), np.int64)
        for number in range(5):
            counts.append(np.full(number, number))
            if self.error is not None:
                raise self.error
        counts.finish()
        empty.finish()


def test_streamed_arrays_are_mapped_the_second_time_and_equal_those_in_memory():
    write = Writer()
    first = cache.streamed("rows", SOURCE_KEY, write, 1)
    second = cache.streamed("rows", SOURCE_KEY, write, 1)
    assert write.calls == 1
    for arrays in (first, second, array_file.in_memory(write)):
        assert arrays["counts"].tolist() == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]
        assert arrays["empty"].tolist() == []
    assert isinstance(second["counts"], np.memmap)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_stream_leaves_nothing(error):
    with pytest.raises(DataError if isinstance(error, OSError) else KeyboardInterrupt):
        cache.streamed("rows", SOURCE_KEY, Writer(error), 1)
    assert list(cache_folder().iterdir()) == []
    assert len(cache.streamed("rows", SOURCE_KEY, Writer(), 1)["counts"]) == 10
