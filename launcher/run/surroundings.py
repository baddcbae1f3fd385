"""What the numbers of a run depend on beside its settings and data: packages, machine, sources."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import torch

from gearshift import models
from gearshift.training.callbacks.base import Facts

FACT = "surroundings"
"""Its name among the facts of a checkpoint."""
_MACHINE = ("device", "gpus", "cores", "system", "host")


def surroundings(environment: Facts, task_folder: object) -> dict[str, dict[str, Any]]:
    """By kind: what of the `environment` of a run counts, threads, packages, the task's sources.

    `task_folder`: that of a custom task; None: it is installed. Imports nothing; reads the sources.
    """
    folder = Path(models.__path__[0])
    if isinstance(task_folder, str):
        folder = Path(task_folder)
    packages = dict(environment["libraries"])
    sources = {}
    for name, module in list(sys.modules.items()):
        # Not getattr: a lazy module would import others.
        version = vars(module).get("__version__")
        path = Path(vars(module).get("__file__") or "")
        if isinstance(version, str) and "." not in name and name not in sys.stdlib_module_names:
            packages[name] = version
        # Not those of an environment in that folder.
        if path.is_relative_to(folder) and "site-packages" not in path.parts:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            sources[path.relative_to(folder).as_posix()] = digest[:16]
    instructions = torch.backends.cpu.get_cpu_capability()
    return {
        "package": packages,
        "machine": {"instructions": instructions, **{key: environment[key] for key in _MACHINE}},
        "threads": {"threads": torch.get_num_threads()},
        "source": sources,
    }
