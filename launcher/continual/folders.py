"""The folders that a run keeps of its experiences: the files of each, and what is fitted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from launcher.continual import ledger
from launcher.continual.lesson import Part
from launcher.run_folder import run_folder
from training.storage import storage_errors

NAME = "experiences"
_DATA, _KEPT = "data", "kept"


def part(run: Path, number: int) -> Part:
    """Where the run keeps part `number` of its data; what the first part's task keeps lies in the
    run folder itself, as that of any run.
    """
    home = run / NAME / f"{number:04d}"
    return Part(home / _DATA, home / _KEPT if number else run)


def lay(run: Path, number: int, source: Path, names: Iterable[str], hold: str) -> None:
    """Make the folder of a part: links to the files `names` of `source`, or copies of them.

    What was there of that part is replaced. Raises StorageError. Touches the disk.
    """
    made = part(run, number)
    with storage_errors(made.data):
        clear(run, number)
        for name in names:
            place = made.data / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if hold == "copy":
                shutil.copy2(source / name, place)
            else:
                place.symlink_to(os.path.abspath(source / name))
        if number:
            made.kept.mkdir(parents=True)
            _carry_fitted(run, made.kept)


def clear(run: Path, number: int) -> None:
    """Take away the folder of a part. Touches the disk."""
    shutil.rmtree(part(run, number).data.parent, ignore_errors=True)


def _carry_fitted(run: Path, kept: Path) -> None:
    """What the first part's task fitted, such as a tokenizer, is what every part goes by."""
    from models.common.split import FILE

    for entry in run.iterdir():
        if not entry.is_file() or entry.is_symlink() or entry.name.startswith("."):
            continue
        if not run_folder.is_record(entry.name) and entry.name not in (FILE, ledger.NAME):
            shutil.copyfile(entry, kept / entry.name)
