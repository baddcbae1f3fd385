"""What the numbers of a run depend on beside its settings and data: packages, machine, sources."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import torch

from gearshift.models.base import Task
from gearshift.training.callbacks.base import Facts

FACT = "surroundings"
"""Its name among the facts of a checkpoint."""


def surroundings(environment: Facts, task: Task) -> dict[str, dict[str, Any]]:
    """By kind: packages and machine as in the `environment` of a run, threads, the task's sources.

    Imports nothing; reads the sources.
    """
    machine = {**environment, "instructions": torch.backends.cpu.get_cpu_capability()}
    del machine["memory_bytes"]
    packages = {**machine.pop("libraries")}
    sources = {}
    home = vars(sys.modules[type(task).__module__])
    folder = Path(home.get("__file__") or "").parent  # a notebook has none
    for name, module in list(sys.modules.items()):
        # Not getattr: a lazy module would import others.
        version = vars(module).get("__version__")
        path = Path(vars(module).get("__file__") or "")
        if isinstance(version, str) and "." not in name:
            packages[name] = version
        # Not those of an environment in that folder.
        if path.is_relative_to(folder) and "site-packages" not in path.parts and path.is_file():
            sources[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    threads = {"threads": torch.get_num_threads()}
    return {"package": packages, "machine": machine, "threads": threads, "source": sources}
