"""The folds that the data of a run can be cut into."""

from __future__ import annotations

import json

from launcher.base.diagnostics import SettingsError
from launcher.base.signals import temporary_folder
from launcher.config.errors import about_data
from launcher.config.provenance import Resolved
from launcher.config.schema import task_with_data
from launcher.config.validate import SPLIT_FIX
from models.base import DataError

_FIRST = "1/groups"


def count_groups(resolved: Resolved) -> int:
    """How many folds `k/groups` there are: groups that the run does not set aside for test.

    Imports torch, and reads the data as `data check` does; what the task saves is temporary.
    Raises SettingsError as the start of a run of such a fold.
    """
    from models.common.split import SPLIT_FILE  # imports numpy

    data = resolved.settings.data.model_copy(update={"fold": _FIRST})
    settings = resolved.settings.model_copy(update={"data": data})
    with temporary_folder("gearshift-folds-") as folder:
        try:
            task_with_data(settings, folder)
        except DataError as error:
            raise about_data(error) from error
        file = folder / SPLIT_FILE
        split = json.loads(file.read_bytes()) if file.is_file() else {}
    if split.get("fold") != _FIRST:
        raise SettingsError.of(
            f"{settings.model.family} cannot be split into folds: it does not read data.fold",
            key="data.fold",
            fix=SPLIT_FIX,
        )
    return len(split["train"]) + len(split["val"])
