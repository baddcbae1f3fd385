"""The job file: the plan of a run as the supervisor hands it to each rank."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from launcher.config import schema
from launcher.config.presets import TASK_FOLDER
from launcher.run_folder.run_plan import RunPlan
from models.catalog import is_custom
from training.settings import nested

SUPERVISOR = "GEARSHIFT_SUPERVISOR"
"""Environment variable with the process id of the supervisor."""
_FILE = "job.json"


def save(plan: RunPlan, folder: Path) -> None:
    """Write `plan` to `folder`, which only the user can read. Touches the disk.

    Without warnings: they have been shown.
    """
    # `load` builds the settings again from the values.
    plain = replace(plan, resolved=replace(plan.resolved, settings=None, warnings=()))
    content = TypeAdapter(RunPlan).dump_python(plain, mode="json")
    (folder / _FILE).write_text(json.dumps(content), encoding="utf-8")


def load(folder: Path) -> RunPlan:
    """Read the plan that `save` wrote; reports go to the same folder. Touches the disk."""
    plan = TypeAdapter(RunPlan).validate_python(json.loads((folder / _FILE).read_bytes()))
    plain = {key: value.value for key, value in plan.resolved.values.items()}
    if is_custom(plain["model.family"]):
        from launcher.config import custom_task  # for the runs that train one

        custom_task.add_search_folder(plain.get(TASK_FOLDER))
    settings = schema.settings_class(plain["model.family"]).model_validate(nested(plain))
    return replace(plan, resolved=replace(plan.resolved, settings=settings), reports=folder)


def stacks_file(folder: Path, rank: int) -> Path:
    """The file for the stacks of a rank that a fatal signal ends."""
    return folder / f"rank-{rank}.stacks"
