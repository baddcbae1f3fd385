"""The class of a task by the name of its family, or of one of the person's own."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from launcher.settings import own_task
from models.base import Context, Task
from models.catalog import FAMILIES, is_own


def task_class(family: str) -> Callable[[Any, Any, Context], Task]:
    """What builds the task from the sections `model` and `data`, and a context. Imports torch.

    Raises SettingsError where a task of the person's own cannot be used.
    """
    if is_own(family):
        return own_task.load(family)
    module, _, name = FAMILIES[family].task.partition(":")
    built: Callable[[Any, Any, Context], Task] = getattr(import_module(module), name)
    return built
