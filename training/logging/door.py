"""The folder through which files of a run get their names; without it none gets one any more."""

from __future__ import annotations

from pathlib import Path


def beside(final: Path, door: Path | None) -> Path:
    """Where what is to be `final` is made: in the `door`, or next to it where there is none.

    Renaming it from there is the one moment at which the run folder changes. It fails where the
    door is gone, also on a network file system that still believes in its name.
    """
    return (door or final.parent) / f".{final.name}.new"


def way(path: Path, door: Path | None) -> Path:
    """The name by which a file of the run folder is opened: one that ends with the `door`."""
    return path if door is None else door / ".." / path.name
