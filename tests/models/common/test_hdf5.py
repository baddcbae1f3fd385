import h5py
import numpy as np
import pytest

from gearshift.models.common import hdf5


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "some.h5", "w") as opened:
        yield opened


def test_a_dataset_whose_values_the_file_has_is_read(file):
    for number, options in enumerate(({}, {"chunks": (3, 2)}, {"compression": "gzip"})):
        assert (
            hdf5.problem(file.create_dataset(f"{number}", data=np.ones((10, 4)), **options)) is None
        )
    for shape in ((0, 4), ()):
        assert hdf5.problem(file.create_dataset(f"{shape}", data=np.ones(shape))) is None
    assert hdf5.problem(file.create_dataset("b", (0, 4), np.float32, maxshape=(None, 4))) is None


def test_hdf5_is_known_by_its_signature_also_behind_another_block(tmp_path):
    path = tmp_path / "a"
    for block in (0, 512, 2048):
        h5py.File(path, "w", userblock_size=block).close()
        assert hdf5.is_hdf5(path) and h5py.is_hdf5(path), block
    for content in (
        b"",
        b"MATLAB 5.0",
        bytes(256) + path.read_bytes()[2048:],
        path.read_bytes()[:2050],
    ):
        path.write_bytes(content)
        assert hdf5.is_hdf5(path) == h5py.is_hdf5(path) == False, content[:9]  # noqa: E712


@pytest.mark.parametrize("options", [{}, {"chunks": (1000,), "compression": "gzip"}])
def test_a_dataset_that_claims_far_more_than_the_file_stores_is_found(file, options):
    assert hdf5.problem(file.create_dataset("a", (10**12,), np.float32, **options))
    packed = {"chunks": (10**6,), "compression": "gzip"}
    assert hdf5.problem(file.create_dataset("b", data=np.zeros(8 * 10**7, np.uint8), **packed))
    assert hdf5.problem(file.create_dataset("c", data=np.zeros(10**7, np.uint8), **packed)) is None
    found = file.create_dataset("d", (100, 4), np.float32, chunks=(10, 4))
    found[:25] = 1
    assert hdf5.problem(found)


@pytest.fixture
def other(tmp_path):
    """Another file, whose numbers nobody asked for."""
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as opened:
        opened["group/secret"] = np.ones((10, 4))
    return path


def test_an_array_in_another_file_is_not_read(file, other):
    file.create_dataset("raw", (10, 4), np.float64, external=[(str(other), 0, 320)])
    layout = h5py.VirtualLayout((10, 4), np.float64)
    layout[:] = h5py.VirtualSource(str(other), "group/secret", shape=(10, 4))
    file.create_virtual_dataset("virtual", layout)
    for name in ("raw", "virtual"):
        assert hdf5.problem(hdf5.member(file, name))


@pytest.mark.parametrize("name", ["a", "a/secret", "b", "b/secret"])
def test_a_link_is_refused_before_it_is_followed(file, other, name):
    file["a"] = h5py.ExternalLink(str(other), "group")
    file["b"] = h5py.SoftLink("/a")
    with pytest.raises(ValueError, match="is a link"):
        hdf5.member(file, name)


def test_members_are_found_by_their_path(file):
    file["x/y"] = np.ones(3)
    assert hdf5.member(file, "x/y").shape == (3,)
    assert hdf5.member(file, "x/z") is hdf5.member(file, "x/y/z") is None
