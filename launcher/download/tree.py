"""The folder that an archive becomes: members are written one by one, and links at the end."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import IO

from launcher.download import names
from launcher.download.bounds import Bounds, Unsafe
from launcher.download.members import Member

_PIECE = 1 << 20
_LONGEST_CHAIN = 40
"""Links that lead to links; as many as Linux follows."""


class Tree:
    """A new folder, into which nothing is written through a link. Touches the disk.

    While files are written there is no symbolic link in it: so that a path is where it seems to
    be. Python's own filter for tar files came with 3.12, and knows no zip files.
    """

    def __init__(self, root: Path, bounds: Bounds) -> None:
        self._root = root
        self._bounds = bounds
        self._links: dict[str, str] = {}
        root.mkdir()

    def add(self, member: Member) -> None:
        """Write one member; keep a link for later. Raises Unsafe."""
        self._bounds.member()
        path = _within(member.path)
        if path == ".":
            return
        try:
            if member.kind == "link":
                if path in self._links:
                    raise FileExistsError
                self._links[path] = _led_to(path, member.target)
            elif member.kind == "folder":
                (self._root / path).mkdir(parents=True, exist_ok=True)
            else:
                (self._root / path).parent.mkdir(parents=True, exist_ok=True)
                self._write(path, member)
        except (FileExistsError, NotADirectoryError):
            raise Unsafe(f"holds '{path}' twice") from None

    def link(self) -> None:
        """Make the links, each right to its end. Raises Unsafe."""
        ends = {path: self._end(path) for path in self._links}
        root = os.path.realpath(self._root)
        for path, end in ends.items():
            place = self._root / path
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                if os.path.realpath(place.parent) != os.path.join(root, *path.split("/")[:-1]):
                    raise Unsafe(f"holds '{path}' below a link")
                place.symlink_to(posixpath.relpath(end, posixpath.dirname(path) or "."))
            except (FileExistsError, NotADirectoryError):
                raise Unsafe(f"holds '{path}' twice") from None

    def _write(self, path: str, member: Member) -> None:
        with (self._root / path).open("xb") as file, self._content(path, member) as content:
            while piece := content.read(_PIECE):
                self._bounds.add(len(piece))
                file.write(piece)
            if member.size not in (None, file.tell()):
                raise Unsafe(f"holds '{path}', which has {file.tell()} bytes, not {member.size}")

    def _content(self, path: str, member: Member) -> IO[bytes]:
        if member.kind == "file":
            return member.open()
        twin = self._root / _within(member.target)
        if not twin.is_file():
            raise Unsafe(f"holds '{path}', a link to a file that is not in it before")
        return twin.open("rb")

    def _end(self, path: str) -> str:
        """The file or folder that a link leads to, over any further links."""
        end = self._links[path]
        for _ in range(_LONGEST_CHAIN):
            if end not in self._links:
                break
            end = self._links[end]
        if not (self._root / end).exists():
            raise Unsafe(f"holds '{path}', a link to what is not in it")
        if end == "." or path.startswith(f"{end}/"):
            raise Unsafe(f"holds '{path}', a link to a folder that it lies in")
        return end


def _within(path: str) -> str:
    """A path of an archive in its shortest form. Raises Unsafe where it would lead out."""
    if (wrong := names.member_fault(path)) is not None:
        raise Unsafe(f"holds '{path}', which {wrong}")
    return posixpath.normpath(path)


def _led_to(path: str, target: str) -> str:
    """Where a link at `path` leads, from the root of the archive. Raises Unsafe."""
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if not target or names.member_fault(end) is not None:  # also where it begins with ..
        raise Unsafe(f"holds '{path}', a link that leads out of the folder")
    return end
