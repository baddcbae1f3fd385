"""How a generation of a job ended, in a file by which the job script decides what comes next."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from slurm.environment import SLURM_FOLDER, Generation

WORDS = {0: "done", 1: "failed", 2: "words", 75: "again", 130: "again"}
"""What the script reads first in the file, by exit code."""


def path(run: Path, generation: Generation) -> Path:
    """The file of a generation; those that torchrun started anew in place share it."""
    return run / SLURM_FOLDER / f"outcome.{generation.job}.{generation.number}"


def publish(run: Path, generation: Generation, code: int, text: str = "") -> bool:
    """Write the outcome of `code`, whole or not at all; whether it is ours that counts now.

    The first one stands, for a rank that failed goes before those that it took along; but work
    that is done stays done. `text` is for people. Where the disk is full or the folder gone there
    is no outcome, which the script takes for a crash. Touches the disk.
    """
    final = path(run, generation)
    made = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        with made.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join([f"{WORDS.get(code, 'failed')} {code}", *text.splitlines(), ""]))
            file.flush()
            os.fsync(file.fileno())
        return _put(made, final, replaces=code == 0)
    except OSError:
        return False
    finally:
        with suppress(OSError):
            made.unlink()


def _put(made: Path, final: Path, replaces: bool) -> bool:
    if replaces:
        made.replace(final)
        return True
    try:
        os.link(made, final)  # the one way to give a name that fails where it is taken
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if final.exists():
            return False
        made.replace(final)
    return True
