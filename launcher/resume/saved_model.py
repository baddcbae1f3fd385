"""The model of a run, a checkpoint or an export, built without the data of the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from launcher.base.diagnostics import PROGRAM, SettingsError, nearest_match
from launcher.config import custom_task
from launcher.config.schema import config_of, task_class
from launcher.resume import find, moved
from launcher.resume.find import SavedRun
from launcher.run_folder import run_folder
from models.base import Context, DataError, HasBaseWeights, Task, WorksWithoutData
from models.catalog import FAMILIES, is_custom
from training.checkpoint import manifest, retention

if TYPE_CHECKING:
    from torch.nn import Module

    from training.checkpoint.reader import Checkpoint

EXPORT_CONFIG = "config.json"
AVERAGE, _WEIGHT = "ema", "weight"
_WEIGHTS = "the checkpoint"
"""How errors name the weights."""
_SECTIONS = ("model", "data", "train", "eval")
_FEW = {"train": "seed", "eval": "share"}
"""Of these sections, all that a task reads."""
_ALLOWED = "a run folder, one of its checkpoints, or an export as safetensors"


@dataclass(frozen=True)
class SavedModel:
    """The weights of a model on disk, and what it is built from."""

    path: Path
    """The checkpoint, or the export."""
    folder: Path | None
    """The folder with the saved files of the task; None: a checkpoint outside of its run."""
    settings: Mapping[str, Any] | None
    """The settings of the run as a tree; of an export, those that a task reads. None: unknown."""
    step: int
    kind: str
    """Which weights: "weight", or "ema"."""
    base: Mapping[str, str] | None
    """Folder and checksum of the base weights of adapters; None: unknown."""


def kind_of(checkpoint: Checkpoint) -> str:
    """The weights to use: the EMA if the run has one, since evaluation uses it."""
    return AVERAGE if AVERAGE in checkpoint.kinds else _WEIGHT


def task_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `settings` that a task is built from, as a tree."""
    return {
        section: {_FEW[section]: settings[section][_FEW[section]]}
        if section in _FEW
        else settings.get(section, {})
        for section in _SECTIONS
    }


def chosen(run: SavedRun, name: str | None) -> Path:
    """The checkpoint `name`: best, last or a step; None: the best one, or else the last.

    Raises SettingsError if there is none of that name.
    """
    if name is None:
        name = retention.BEST if run.best is not None else retention.LAST
        if run.named is not None:
            return run.named
    if name == retention.BEST and run.best is not None:
        return run.best
    if name == retention.LAST and run.checkpoints:
        return run.checkpoints[max(run.checkpoints)]
    if name.isdigit() and int(name) in run.checkpoints:
        return run.checkpoints[int(name)]
    steps = [str(step) for step in run.checkpoints]
    names = ([retention.BEST] * (run.best is not None)) + [retention.LAST, *steps]
    raise SettingsError.of(
        f"no checkpoint '{name}' in {run.folder or run.named}",
        value=name,
        where=f"command line: --checkpoint {name}",
        allowed=", ".join(names),
        did_you_mean=nearest_match(name, names),
    )


def find_model(
    argument: str, checkpoint: str | None, command: str, sets: Sequence[str] = ()
) -> SavedModel:
    """The model that `argument`, typed after `command`, names; of a staged run that of the last.

    `checkpoint`: see chosen; `sets`: the arguments of moved.MOVED. Reads the disk and verifies
    checksums. Raises SettingsError, CheckpointError.
    """
    path = Path(argument)
    is_run = run_folder.is_run_folder(path) or (path / manifest.NAME).is_file()
    if not is_run and (path / EXPORT_CONFIG).is_file():
        if checkpoint is not None:
            where = f"command line: --checkpoint {checkpoint}"
            message = f"'{path}' is an export, which has the weights of one checkpoint"
            raise SettingsError.of(message, value=checkpoint, where=where)
        return _of_export(path, command, moved.moved_to(sets))
    stages = list(find.stage_folders(path).values())
    run = find.find_saved(str(stages[-1]) if stages else argument, command, sets)
    return of_checkpoint(run, chosen(run, checkpoint))


def of_checkpoint(run: SavedRun, path: Path) -> SavedModel:
    """The model of the checkpoint at `path`. Raises SettingsError, CheckpointError."""
    from training.checkpoint import base_weights
    from training.checkpoint.reader import open_checkpoint

    found = open_checkpoint(path)
    base = found.facts.get(base_weights.FACT)
    if base is not None or run.pretrained is not None:  # other tasks do not read it again
        run.check_pretrained(found)
    return SavedModel(
        path=path,
        folder=run.folder,
        settings=run.settings(found),
        step=found.manifest.step,
        kind=kind_of(found),
        base=base,
    )


def _of_export(path: Path, command: str, pretrained: str | None) -> SavedModel:
    where = f"command line: {command} {path}"
    try:
        config = json.loads((path / EXPORT_CONFIG).read_bytes())
        settings = task_settings(config)
        model = settings["model"]
        if pretrained is not None:
            model = {**model, "pretrained": pretrained}
        if "folder" in model:
            place = custom_task.folder_for(model["family"], model["folder"], path)
            model = {**model, "folder": place}
        settings["model"] = model
        return SavedModel(
            path=path,
            folder=path,
            settings=settings,
            step=config["step"],
            kind=config["weights"],
            base=config["base"],
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        message = f"'{path / EXPORT_CONFIG}' does not describe a model of this version"
        fix = f"{PROGRAM} export RUN --format safetensors"
        raise SettingsError.of(message, where=where, allowed=_ALLOWED, fix=fix) from None


def build_task(settings: Mapping[str, Any] | None, folder: Path | None, device: str) -> Task:
    """The task of `settings`, without its data; `folder` has its saved files. Imports torch.

    Raises SettingsError, DataError.
    """
    import torch

    if settings is None:
        message = "the checkpoint is outside of its run folder and has no settings"
        raise SettingsError.of(message, allowed="a checkpoint in its run folder")
    build, config = task_class_of(settings), config_of(settings["model"]["family"])
    try:
        model = config.Model.model_validate(settings["model"])
        data = config.Data.model_validate(settings.get("data", {}))
    except ValidationError as error:
        key, reason = ".".join(map(str, error.errors()[0]["loc"])), error.errors()[0]["msg"]
        message = f"the settings of the checkpoint are not those of this version: {key}: {reason}"
        raise SettingsError.of(message, allowed="a checkpoint of the same version") from None
    context = Context(
        seed=settings["train"]["seed"],
        eval_share=settings["eval"]["share"],
        folder=folder,
        device=torch.device(device),
    )
    return build(model, data, context)


def task_class_of(settings: Mapping[str, Any]) -> Callable[[Any, Any, Context], Task]:
    """What builds the task of `settings`. Imports torch. Raises SettingsError."""
    family = settings["model"]["family"]
    if is_custom(family):
        custom_task.add_search_folder(settings["model"].get("folder"))
    elif family not in FAMILIES:
        allowed = f"{', '.join(FAMILIES)}; or a custom task"
        raise SettingsError.of(f"unknown model family '{family}'", value=family, allowed=allowed)
    return task_class(family)


def best_device() -> str:
    """The best kind of device of this machine, such as "cuda". Imports torch."""
    from engines.device import pick_device

    return pick_device("auto").type


def load(saved: SavedModel, task: Task) -> Module:
    """The trained model of `task` on its CPU, in evaluation mode; prepares the task for it.

    A task that does not work without its data reads it. Raises DataError, SettingsError.
    """
    import torch

    from models.common.initial_weights import InitialWeights
    from models.common.initial_weights import load as load_weights

    if isinstance(task, WorksWithoutData):
        task.setup_without_data()
    else:
        task.setup()
    with torch.random.fork_rng(devices=[]):  # the random weights are replaced
        model = task.build()
    names: tuple[str, ...] = ("",)
    base = task.base_folder() if isinstance(task, HasBaseWeights) else None
    if base is not None:
        stored = set(InitialWeights(saved.path, _WEIGHTS).shapes)
        frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
        if frozen and not frozen & stored:  # a checkpoint of adapters
            _check_base(saved, base)
            names = tuple(stored)
    load_weights(_WEIGHTS, model, saved.path, "weights of this model", names)
    return model.eval()


def _check_base(saved: SavedModel, folder: Path) -> None:
    """Raise DataError if the adapters were trained on other weights. Reads each byte of those."""
    from training.checkpoint import base_weights

    if saved.base is not None and base_weights.digest(folder) != saved.base["sha256"]:
        raise DataError(
            f"the weights in '{folder}' are not those that the checkpoint of step {saved.step} "
            "was trained on",
            where=str(saved.path),
            allowed=f"the weights with sha256 {saved.base['sha256']}, once in "
            f"{saved.base['folder']}",
        )
