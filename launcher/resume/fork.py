"""Fork: a new run folder with the files of another run, which stays unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path

from launcher.run_folder import fence, lock, run_folder
from slurm.environment import SLURM_FOLDER

_NOT_COPIED = frozenset(
    {
        run_folder.CHECKPOINTS,
        *run_folder.LINKS,
        run_folder.RESULT,
        run_folder.REPORT,
        run_folder.SETTINGS,
        run_folder.ORIGINS,
        lock.NAME,
        SLURM_FOLDER,
    }
)
"""Files that the new run creates itself."""


def copy(source: Path, folder: Path) -> None:
    """Copy the files of the run in `source` to `folder`, without checkpoints and result.

    Metrics are copied whole: the new run removes lines after its resume point. Touches the disk.
    Raises OSError.
    """
    for entry in sorted(source.iterdir()):
        if entry.name in _NOT_COPIED or entry.name.startswith((run_folder.EXPORT, *fence.HIDDEN)):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, folder / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, folder / entry.name, follow_symlinks=False)
