"""Which files a path names."""

from __future__ import annotations

from pathlib import Path

from models.base import DataError
from models.common import paths
from models.language.text.readers.suffixes import SUFFIXES


def find(path: Path) -> tuple[list[Path], int]:
    """The files to read under `path`, in the order of their names, and how many were ignored.

    A file is itself, whatever its suffix; a folder gives those of a known suffix, at any depth,
    hidden ones left out. Raises DataError if there is none or one may not be looked at.
    """
    allowed = "a file or folder of text, JSONL or CSV; embedded:python, embedded:commands"
    if not paths.existing(str(path), allowed).is_dir():
        if not path.is_file():
            raise DataError(
                f"data.path '{path}' is no file that can be read more than once",
                where=f"looked for {path.absolute()}",
                allowed="a file on disk, not a pipe or a device",
            )
        return [path], 0
    files = paths.files(path)
    chosen = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not chosen:
        raise DataError(
            f"data.path '{path}' holds no file of a known suffix ({len(files)} others)",
            allowed=" ".join(sorted(SUFFIXES)),
            fix="name the file itself: a single file may have any suffix",
        )
    return chosen, len(files) - len(chosen)
