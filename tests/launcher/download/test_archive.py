"""Archives are unpacked to folders; of hostile ones nothing is written."""

import gzip
import io
import os
import stat
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest

from gearshift.launcher.base.diagnostics import SettingsError

FILES = {"a.txt": b"one", "in/b.txt": b"two" * 1000, "in/empty.txt": b""}


def tar(*members, mode="w", files=FILES):
    """A tar file of `files`, and of `members` as (name, type, link) with a content of 3 bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = 3 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"bad"))
    return buffer.getvalue()


def zipped(*members, files=FILES, mode=None):
    """A zip file of `files`, and of `members` as (name, content) with the `mode` of Unix."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a duplicate name
        for name, content in files.items():
            archive.writestr(name, content)
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: ZipInfo would change it
            if mode is not None:
                info.create_system, info.external_attr = 3, mode << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@pytest.fixture
def unpacked(here, get):
    """Downloads bytes under a name; gives the files of the folder."""

    def unpack(name, content, **settings):
        (here / "far").mkdir(exist_ok=True)
        (here / "far" / name).write_bytes(content)
        before = outside(here)
        try:
            out = get((here / "far" / name).as_uri(), **settings)[0].path
        finally:
            assert outside(here) == before, "something was written outside"
        if out.is_file():
            return out.read_bytes()
        return {
            path.relative_to(out).as_posix(): path.read_bytes()
            for path in out.rglob("*")
            if path.is_file()
        }

    return unpack


def outside(here):
    """All paths outside downloads/."""
    return sorted(str(p) for p in here.rglob("*") if "downloads" not in p.parts)


@pytest.fixture
def refused(unpacked, here):
    """The error of an archive that leaves nothing behind, its line with the fix left out."""

    def refuse(name, content, **settings):
        with pytest.raises(SettingsError) as wrong:
            unpacked(name, content, **settings)
        files = [p.name for p in Path("downloads").rglob("*") if p.is_file() or p.is_symlink()]
        assert all(name.endswith(".lock") for name in files), files
        assert "\x1b" not in str(wrong.value)
        return str(wrong.value)

    return refuse


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.zip", zipped()),
        ("set.tar", tar()),
        ("set.tar.gz", tar(mode="w:gz")),
        ("set.tar.xz", tar(mode="w:xz")),
        ("set.tar", tar(mode="w:gz")),  # the first bytes decide, not the suffix
    ],
)
def test_an_archive_is_unpacked_to_a_folder(unpacked, name, content):
    assert unpacked(name, content) == FILES
    assert Path("downloads/set/in/b.txt").read_bytes() == FILES["in/b.txt"]
    assert not Path("downloads/set.zip").exists()


def test_of_two_members_of_a_name_the_last_stays(unpacked):
    assert unpacked("set.tar", tar(("a.txt", REG, "")))["a.txt"] == b"bad"
    assert unpacked("other.zip", zipped(("a.txt", b"bad")))["a.txt"] == b"bad"


REG, SYM, LNK, DIR = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
HOSTILE_TAR = {
    "a path upwards": ("../bad", REG, ""),
    "an absolute path": ("/tmp/bad", REG, ""),
    "a drive": ("C:/bad", REG, ""),
    "a backslash": ("..\\bad", REG, ""),
    "a control character": ("ba\x1b[2Jd", REG, ""),
    "a device": ("null", tarfile.CHRTYPE, ""),
    "a link upwards": ("l", SYM, "../secret"),
    "a link to a file in it": ("l", SYM, "a.txt"),
    "a hard link": ("l", LNK, "a.txt"),
}


@pytest.mark.parametrize("case", HOSTILE_TAR)
def test_a_hostile_tar_file_leaves_nothing(refused, here, case):
    (here / "secret").write_text("secret")
    assert "unsafe path" in refused("set.tar", tar(HOSTILE_TAR[case]))
    assert not Path("downloads/set").exists()


def test_a_hostile_zip_file_leaves_nothing(refused):
    for name in ("../bad", "in\\..\\..\\bad", "/tmp/bad", "C:\\bad"):
        assert "unsafe path" in refused("set.zip", zipped((name, b"bad"))), name
    link = zipped(("l", b"a.txt"), mode=stat.S_IFLNK | 0o777)
    assert "unsafe path" in refused("set.zip", link)


MB = 10**6


def claiming(size, content):
    """A zip file whose only member claims `size`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", content)
        archive.filelist[0].file_size = size
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.zip", zipped(("zeros", bytes(2 * MB)))),
        ("set.zip", claiming(1 << 60, b"one")),
        ("set.tar.gz", gzip.compress(tar(files={"zeros": bytes(2 * MB)}), mtime=0)),
    ],
)
def test_a_bomb_is_stopped_at_the_limit(refused, name, content):
    assert "download.max_gb" in refused(name, content, max_gb=1e-3)


def test_a_size_that_is_a_lie_is_refused(refused):
    refused("false.zip", claiming(1, bytes(2 * MB)), max_gb=1e-3)


def test_a_header_of_a_tar_file_that_would_fill_memory_is_refused(refused):
    content = io.BytesIO()
    with tarfile.open(
        fileobj=content, mode="w:gz", pax_headers={"comment": "x" * 65 * 2**20}
    ) as made:
        made.addfile(tarfile.TarInfo("a.txt"))
    refused("set.tar.gz", content.getvalue())


def broken_in_the_middle():
    content = bytearray(tar(files={f"{number}.txt": b"x" for number in range(4)}))
    content[2048 + 148 : 2048 + 156] = b"xxxxxxxx"  # the checksum of the third header
    return bytes(content)


def flipped(content):
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


def changed(*places):
    """A zip file of one text, with another byte at an offset from each mark."""
    content = bytearray(zipped(files={"a.txt": b"one"}))
    for mark, offset, value in places:
        content[content.index(mark) + offset] = value
    return bytes(content)


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.zip", b""),
        ("set.zip", flipped(zipped(files={"a": os.urandom(5000)}))),
        ("set.zip", changed((LOCAL, 6, 1), (CENTRAL, 8, 1))),
        ("set.zip", changed((LOCAL, 8, 97), (CENTRAL, 10, 97))),
        ("set.tar", b"no tar at all" * 100),
        ("set.tar", broken_in_the_middle()),
        ("set.tar.gz", tar(mode="w:gz")[:-20]),
        ("set.tar.gz", tar(mode="w:gz")[:-6] + b"sum" + tar(mode="w:gz")[-3:]),
    ],
    ids=[
        "empty",
        "damaged",
        "encrypted",
        "unknown compression",
        "no tar file",
        "broken",
        "cut",
        "wrong checksum",
    ],
)
def test_a_broken_archive_leaves_nothing(refused, name, content):
    assert "unpack: no" in refused(name, content)
