"""Where the module of a custom task is after its project was copied or moved."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any


@cache
def folder_for(name: object, recorded: object, run: Path) -> Any:
    """The folder of the module of the task `name` for the run or export in the folder `run`.

    In a copied or moved project it is not the `recorded` one but the nearest folder above `run`
    that has the module, which is said once: where the recorded one lacks it, or has the run that
    was copied. Reads the disk.
    """
    if not isinstance(name, str) or not isinstance(recorded, str):
        return recorded
    top, run = name.partition(":")[0].partition(".")[0], run.absolute()
    home = next((folder for folder in run.parents if _has_module(folder, top)), None)
    before = Path(recorded).expanduser()
    if home is None or (before.exists() and before.samefile(home)):
        return recorded
    if _has_module(before, top) and not (before / run.relative_to(home)).exists():
        return recorded  # the run was never inside of it
    print(
        f"note: {name} is loaded from {home}, beside the run, not from {recorded}, where it was "
        "trained",
        file=sys.stderr,
    )
    return str(home)


def _has_module(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
