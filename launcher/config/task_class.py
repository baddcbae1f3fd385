"""The class of a task, by its family or of the person's own, and its data read by all ranks."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from launcher.config import custom_task
from models.base import Context, Task
from models.catalog import FAMILIES, is_custom

if TYPE_CHECKING:
    from engines.base import World


def task_class(family: str) -> Callable[[Any, Any, Context], Task]:
    """What builds the task from the sections `model` and `data`, and a context. Imports torch.

    Raises SettingsError where a task of the person's own cannot be used.
    """
    if is_custom(family):
        return custom_task.load_task_class(family)
    module, _, name = FAMILIES[family].task.partition(":")
    built: Callable[[Any, Any, Context], Task] = getattr(import_module(module), name)
    return built


def set_up_task(task: Task, world: World) -> None:
    """Let `task` read its data, on rank 0 first, and on the others with what that left. Collective.

    Raises DataError.
    """
    if world.rank == 0:
        task.setup()
    world.barrier()
    if world.rank != 0:
        task.setup()
