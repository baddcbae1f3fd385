"""What the numbers of a run depend on beside its settings and data: packages, machine, sources."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gearshift import models
from gearshift.training.callbacks.base import Facts

FACT = "surroundings"
"""Its name among the facts of a checkpoint."""


def surroundings(environment: Facts, task_folder: object) -> dict[str, Any]:
    """The `environment` of a run with threads, packages that are loaded, and the task's sources.

    `task_folder`: that of a custom task; None: it is installed. Imports nothing; reads the sources.
    """
    return {
        "environment": environment,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "packages": dict(sorted(_versions())),
        "sources": dict(sorted(_sources(task_folder))),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name, module in list(sys.modules.items()):
        is_package = "." not in name and name not in sys.stdlib_module_names
        # Not getattr: a lazy module would import others.
        version = vars(module).get("__version__") if is_package else None
        if isinstance(version, str) and not name.startswith("_"):
            yield name, version


def _sources(task_folder: object) -> Iterator[tuple[str, str]]:
    """The digests of the loaded modules in the folder of the task, or of the families."""
    folder = Path(models.__path__[0])
    if isinstance(task_folder, str):
        folder = Path(task_folder)
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        path = Path(file) if isinstance(file, str) else None
        if path is None or path.suffix != ".py" or not path.is_relative_to(folder):
            continue
        if "site-packages" in path.parts:  # of an environment in that folder
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        yield path.relative_to(folder).as_posix(), digest[:16]
