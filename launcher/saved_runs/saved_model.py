"""A finished run that a command names, and a checkpoint or an export of it, opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import SettingsError, unknown
from gearshift.launcher.config import custom_task, hub
from gearshift.launcher.config.presets import TASK_FOLDER
from gearshift.launcher.config.schema import PRETRAINED, config_of, task_class
from gearshift.launcher.run_folder import checkpoint_search, run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.models.base import Context, HasBaseWeights, Task, WorksWithoutData
from gearshift.models.catalog import FAMILIES, HUB, folder_of, is_custom
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.checkpoint import base_weights, manifest, retention
from gearshift.training.checkpoint.manifest import CheckpointError
from gearshift.training.settings import flat, nested
from gearshift.training.storage import read_json

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.training.checkpoint.reader import Checkpoint

EXPORT_CONFIG = "config.json"
AVERAGE = "ema"
WEIGHT = "weight"
_MOVABLE = (PRETRAINED, TASK_FOLDER)
"""Settings of a finished run that name a folder, which may have moved."""
_OF_TASK = ("model", "data", "train", "eval")
"""The sections of the settings that a task is built from."""


@dataclass(frozen=True)
class SavedRun:
    """A run folder, or one checkpoint, given to a command."""

    folder: Path
    """The run folder."""
    named: Path | None
    """The checkpoint, if the user gave one."""
    checkpoints: Mapping[int, Path]
    """All checkpoints by step, the earliest first, at least one; some may be damaged."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """The new folder of the pretrained model, or of a custom task, by its setting."""

    def chosen(self, name: str | None) -> Path:
        """The checkpoint `name`: best, last or a step; None: the best one, or else the last.

        Reads the disk. Raises SettingsError if there is none of that name.
        """
        if name is None and self.named:
            return self.named
        # The first one is the default: best, or else last.
        paths = {}
        if (self.folder / retention.BEST).is_dir():
            paths[retention.BEST] = self.folder / retention.BEST
        paths[retention.LAST] = self.checkpoints[max(self.checkpoints)]
        paths |= {str(step): path for step, path in self.checkpoints.items()}

        name = name or next(iter(paths))
        if name not in paths:
            message = f"no checkpoint '{name}' in {self.folder}"
            raise SettingsError([unknown("--checkpoint", name, paths, message)])
        return paths[name]


def moved_folders(sets: Sequence[str]) -> dict[str, str]:
    """The folders in the arguments of `--set` by their setting. Raises SettingsError."""
    folders = {}
    for text in sets:
        key, _, value = text.partition("=")
        if key.strip() not in _MOVABLE or not value:
            raise SettingsError.of(
                f"'{key}' cannot be set here",
                key=key,
                value=text,
                where=f"the command line: --set {text}",
                allowed=" or ".join(f"--set {name}=DIR" for name in _MOVABLE),
            )
        folders[key.strip()] = value
    return folders


def find_saved(word: str, command: str, sets: Sequence[str] = ()) -> SavedRun:
    """What `word`, typed after `command`, names; `sets` are those of moved_folders.

    Reads the disk. Raises SettingsError where there is no run or checkpoint, none was saved, or a
    file of the run is damaged.
    """
    moved = moved_folders(sets)
    path = Path(word)
    where = f"the command line: {command} {word}"
    with checkpoint_search.reading(where):
        folder, named = checkpoint_search.around(path)
        if not folder:
            raise checkpoint_search.no_run(path, where, command)
        RunReader(folder).check()
        checkpoints = run_folder.checkpoints(folder)

    problem = None
    if named and not named.is_dir():
        problem = f"{folder} has no checkpoint of step {manifest.step_of(named.resolve().name)}"
        allowed = ", ".join(map(str, checkpoints)) or "a run with a checkpoint"
    elif not checkpoints:
        problem = f"{path} has no checkpoint"
        allowed = "a run with a checkpoint; see save.every and save.last"
    if problem:
        raise SettingsError.of(problem, value=word, where=where, allowed=allowed)
    return SavedRun(folder, named, checkpoints, moved)


@dataclass(frozen=True)
class SavedModel:
    """The weights of a model on disk, and what it is built from."""

    path: Path
    """The checkpoint, or the export."""
    folder: Path
    """The folder with the saved files of the task."""
    settings: Facts
    """The settings of the run by dotted key; of an export, those that a task reads."""
    step: int
    kind: str
    """Which weights: "weight", or "ema"."""
    base: Mapping[str, str] | None
    """Folder and checksum of the pretrained weights; None: unknown."""
    has_moved: bool = False
    """Whether the user named another folder of the pretrained weights."""

    @property
    def family(self) -> str:
        """The family, or the name of the custom task."""
        return str(self.settings["model.family"])

    def describe(self, device: str) -> str:
        """`step 200 of runs/x, EMA`, followed by the `device` that it runs on."""
        average = "EMA, " if self.kind == AVERAGE else ""
        return f"step {self.step} of {self.folder}, {average}{device}"

    def check_pretrained(self) -> None:
        """Check that the folder of the pretrained model exists; of a new one also its weights.

        Reads the disk; a model of the hub is downloaded. Raises SettingsError.
        """
        folder = self.settings.get(PRETRAINED)
        if folder is None:
            return
        where = str(self.path)
        if self.has_moved:
            where = f"the command line: --set {PRETRAINED}={folder}"
        if str(folder).startswith(HUB):
            hub.fetch(folder, weights=True)
        path = folder_of(str(folder))
        if not path.is_dir():
            raise SettingsError.of(
                f"{PRETRAINED} '{folder}' is not a folder ({path.absolute()})",
                value=folder,
                where=where,
                hint=f"--set {PRETRAINED}=DIR",
            )
        if self.has_moved:
            self.check_base(path, where)

    def check_base(self, folder: Path, where: str) -> None:
        """Raise SettingsError if the model was trained on other weights than those in `folder`.

        Reads each byte of those.
        """
        known = self.base or {"sha256": "unknown", "folder": "its own path"}
        if base_weights.digest(folder) != known["sha256"]:
            raise SettingsError.of(
                f"the checkpoint of step {self.step} was trained on other weights "
                f"than '{folder}' has",
                value=str(folder),
                where=where,
                allowed=f"the weights with sha256 {known['sha256']}, once in {known['folder']}",
            )

    def task_class(self) -> Callable[[Any, Any, Context], Task]:
        """What builds the task. Imports torch. Raises SettingsError."""
        if is_custom(self.family):
            custom_task.add_search_folder(self.settings.get(TASK_FOLDER))
        return task_class(self.family)

    def task_settings(self) -> Json:
        """The settings that the task is built from, as a tree.

        Raises KeyError, TypeError or AttributeError for those of another program, or of an unknown
        family.
        """
        if not is_custom(self.family) and self.family not in FAMILIES:
            raise KeyError(self.family)
        tree = nested(self.settings)
        return {
            "model": tree["model"],
            "data": tree.get("data", {}),
            "train": {"seed": tree["train"]["seed"]},
            "eval": {"share": tree["eval"]["share"]},
        }

    def task(self, device: str) -> Task:
        """The task, without its data. Imports torch. Raises SettingsError, DataError."""
        import torch

        from gearshift.training.checkpoint.reader import CheckpointWeights
        from gearshift.training.storage import write_file

        build = self.task_class()
        config = config_of(self.family)
        settings = self.task_settings()
        try:
            model = config.Model.model_validate(settings["model"])
            data = config.Data.model_validate(settings["data"])
        except ValueError as error:
            raise SettingsError.of(
                f"the settings of the checkpoint are not those of this version: {error}",
                allowed="a checkpoint of the same version",
            ) from None
        seed = settings["train"]["seed"]
        context = Context(
            seed,
            settings["eval"]["share"],
            self.folder,
            torch.device(device),
            open_checkpoint=CheckpointWeights,
            write_file=write_file,
        )
        return build(model, data, context)

    def load(self, task: Task) -> Module:
        """The trained model of `task` on its CPU, in evaluation mode; prepares the task for it.

        A task that does not work without its data reads it. Raises DataError, SettingsError.
        """
        import torch

        from gearshift.models.common.initial_weights import InitialWeights
        from gearshift.models.common.initial_weights import load as load_weights
        from gearshift.training.checkpoint.reader import CheckpointWeights

        if isinstance(task, WorksWithoutData):
            task.setup_without_data()
        else:
            task.setup()
        with torch.random.fork_rng(devices=[]):  # the random weights are replaced
            model = task.build()
        names: tuple[str, ...] = ("",)
        base = task.base_folder() if isinstance(task, HasBaseWeights) else None
        if base:
            stored = set(InitialWeights(self.path, "the checkpoint", CheckpointWeights).tensors)
            frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
            if frozen and not frozen & stored:  # a checkpoint of adapters
                self.check_base(base, str(self.path))
                names = tuple(stored)
        # Of a checkpoint they were verified as it was opened; an export has no checksums.
        load_weights(
            "the checkpoint",
            model,
            self.path,
            "weights of this model",
            names,
            is_verified=True,
            open_checkpoint=CheckpointWeights,
        )
        return model.eval()


def open_checkpoint(run: SavedRun, name: str | None) -> tuple[SavedModel, Checkpoint]:
    """The model of the checkpoint `name` of `run`, see SavedRun.chosen.

    Checksums and numbers are verified. Imports torch. Reads the disk. Raises SettingsError,
    CheckpointError.
    """
    environment.limit_spinning()  # before torch is imported
    from gearshift.training.checkpoint import reader

    # Verified here, so that loading need not read the checksums again.
    checkpoint = reader.open_checkpoint(run.chosen(name))
    model = model_of(run, checkpoint)
    checkpoint.check_numbers(model.kind)
    return model, checkpoint


def model_of(run: SavedRun, checkpoint: Checkpoint) -> SavedModel:
    """The model of an open checkpoint of `run`; with the EMA, if the run has one, as evaluation.

    Reads the disk. Raises SettingsError, CheckpointError.
    """
    source = run.folder / run_folder.SETTINGS
    try:
        model = SavedModel(
            path=checkpoint.folder,
            folder=run.folder,
            settings=_relocated(checkpoint.facts["settings"], run.moved, source),
            step=checkpoint.manifest.step,
            kind=AVERAGE if AVERAGE in checkpoint.kinds else WEIGHT,
            base=checkpoint.facts.get(base_weights.FACT),
            has_moved=PRETRAINED in run.moved,
        )
        model.task_settings()
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint.folder / manifest.STATE} lacks the settings of a run: {error!r}"
        ) from error
    return model


def _relocated(settings: Facts, moved: Mapping[str, str], source: Path) -> Json:
    """`settings` with the folders of the pretrained model and of a custom task as they are now.

    `moved`: see SavedRun; `source`: the file or folder with the settings. Raises SettingsError.
    """
    now = dict(settings)
    if PRETRAINED in moved:
        folder = moved[PRETRAINED]
        now[PRETRAINED] = hub.fetch(folder) if folder.startswith(HUB) else folder
    if TASK_FOLDER in now and TASK_FOLDER in moved:
        now[TASK_FOLDER] = os.path.realpath(os.path.expanduser(moved[TASK_FOLDER]))
    elif TASK_FOLDER in now:
        now[TASK_FOLDER] = custom_task.folder_for(
            settings["model.family"], now[TASK_FOLDER], source, f"{source} {TASK_FOLDER}"
        )
    return now


def open_model(
    argument: str, name: str | None, command: str, sets: Sequence[str] = ()
) -> SavedModel:
    """The model that `argument`, typed after `command`, names; of a staged run that of the last.

    `name`: the checkpoint, see SavedRun.chosen; `sets`: arguments as of moved_folders. An export is
    a model as well. Reads the disk and verifies checksums. Raises SettingsError, CheckpointError.
    """
    path = Path(argument)
    is_run = run_folder.is_run_folder(path) or (path / manifest.NAME).is_file()
    if not is_run and (path / EXPORT_CONFIG).is_file():
        if name is not None:
            raise SettingsError.of(
                f"'{path}' is an export, which has the weights of one checkpoint",
                value=name,
                where=f"command line: --checkpoint {name}",
            )
        return _open_export(path, command, moved_folders(sets))
    for stage in RunReader(path).stages().values():
        argument = str(stage)  # at last that of the last one
    model, _ = open_checkpoint(find_saved(argument, command, sets), name)
    if model.base or model.has_moved:  # other tasks do not read it again
        model.check_pretrained()
    return model


def _open_export(path: Path, command: str, moved: Mapping[str, str]) -> SavedModel:
    file = path / EXPORT_CONFIG
    try:
        config = read_json(file)
        settings = flat({section: config[section] for section in _OF_TASK})
        model = SavedModel(
            path=path,
            folder=path,
            settings=_relocated(settings, moved, file),
            step=config["step"],
            kind=config["weights"],
            base=config["base"],
        )
        model.task_settings()
        return model
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise SettingsError.of(
            f"'{file}' does not describe a model of this version",
            where=f"command line: {command} {path}",
            allowed="a run folder, one of its checkpoints, or an export as safetensors",
        ) from None
