"""A run folder that begins with what another run had, and leaves that one as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from launcher.run_folder import fence, lock, run_folder
from slurm.environment import SLURM_FOLDER

_LEFT = frozenset(
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
"""What the new run makes for itself."""


def copy(source: Path, folder: Path) -> None:
    """Copy what the run in `source` left to `folder`, but for its checkpoints and its end.

    Metrics come whole: the run cuts what is after the step that it goes on from. Raises OSError.
    """
    for entry in sorted(source.iterdir()):
        if entry.name in _LEFT or entry.name.startswith((run_folder.EXPORT, *fence.HIDDEN)):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, folder / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, folder / entry.name, follow_symlinks=False)
