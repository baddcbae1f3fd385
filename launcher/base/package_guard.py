"""Keeps a person's folder called `models` or `training` from being imported in place of ours."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAMES = frozenset({"engines", "models", "training", "slurm", "ds_configs"})
HOME = Path(__file__).resolve().parents[2]
"""The folder in which this program's packages lie side by side."""


class OwnPackages(MetaPathFinder):
    """Finds our five packages beside `launcher`, wherever the working directory is."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of one of our packages; None for every other name, submodules included."""
        if fullname not in NAMES:
            return None
        return PathFinder.find_spec(fullname, [str(HOME)])


def pin() -> None:
    """From now on `models`, `training`, `engines`, `slurm` and `ds_configs` are ours.

    Raises ImportError where Python use has already imported a foreign package of such a name: the
    two cannot live in one process.
    """
    for name in sorted(NAMES):
        found = sys.modules.get(name)
        if found is not None and not _is_ours(found):
            raise ImportError(
                f"the package {name!r} of {_place(found)} is imported already, and this program "
                f"has a package of that name; import launcher first, or rename yours",
                name=name,
            )
    if not any(isinstance(finder, OwnPackages) for finder in sys.meta_path):
        sys.meta_path.insert(0, OwnPackages())


def search_path(environ: Mapping[str, str]) -> str:
    """PYTHONPATH on which a new interpreter finds this very `launcher`."""
    given = environ.get("PYTHONPATH", "")
    home = str(HOME)
    installed = [*site.getsitepackages(), site.getusersitepackages()]
    if home in installed:
        # In front of the standard library, old packages there would take its modules' names.
        return given
    return os.pathsep.join(filter(None, (home, given)))


def _is_ours(module: ModuleType) -> bool:
    places = [Path(place).resolve() for place in getattr(module, "__path__", [])]
    return places == [HOME / module.__name__]


def _place(module: ModuleType) -> str:
    places = list(getattr(module, "__path__", [])) or [getattr(module, "__file__", None)]
    return str(places[0] or "this process")
