"""The model of a checkpoint, in the forms that other programs load."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.config import custom_task
from launcher.config.custom_task import task_class
from launcher.config.schema import config_of
from launcher.resume.saved_run import SavedRun
from launcher.run_folder import run_folder
from models.base import Context, HuggingFace
from models.catalog import FAMILIES, is_custom
from training.logging.strict_json import encode
from training.storage import storage_errors

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint

_SHARD_BYTES = 5 * 10**9
"""The largest file that Hugging Face's own tools write."""
_AVERAGE, _WEIGHT = "ema", "weight"


@dataclass(frozen=True)
class Source:
    """What is exported."""

    run: SavedRun
    checkpoint: Checkpoint

    @property
    def kind(self) -> str:
        """Which weights: the average where the run keeps one, as that is what was evaluated."""
        return _AVERAGE if _AVERAGE in self.checkpoint.kinds else _WEIGHT

    @property
    def metrics(self) -> Mapping[str, Any] | None:
        """What the evaluation at the checkpoint's step gave; None: there was none. Reads disk."""
        if self.run.folder is None:
            return None
        found = None
        path = self.run.folder / run_folder.METRICS
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
        for line in lines:
            if '"eval"' in line and line.endswith("}"):
                told = json.loads(line)
                if told["kind"] == "eval" and told["step"] == self.checkpoint.manifest.step:
                    found = told["metrics"]
        return found


def check(form: str, source: Source) -> None:
    """Whether `form` can be made of `source`, before anything is written. Raises SettingsError."""
    if form == "hf":
        _task(source)


def plain(source: Source, folder: Path) -> None:
    """model.safetensors under the model's own names, and config.json. Touches disk."""
    from training.checkpoint.manifest import MODEL
    from training.checkpoint.weights import write_weights

    write_weights(source.checkpoint, folder / MODEL, source.kind)
    written = source.checkpoint.manifest
    settings = source.run.settings(source.checkpoint) or {}
    model = settings.get("model", {})
    told = {
        "family": model.get("family"),
        "size": model.get("size"),
        "model": model,
        "parameters": sum(prod(shape) for shape in source.checkpoint.shapes.values()),
        "weights": source.kind,
        "step": written.step,
        "samples": written.samples,
        "metrics": source.metrics,
        "engine": written.engine,
        "world_size": written.world_size,
        "libraries": written.libraries,
    }
    path = folder / "config.json"
    with storage_errors(path):
        path.write_text(encode(told, indent=2) + "\n", encoding="utf-8")


def hugging_face(source: Source, folder: Path) -> None:
    """A folder that transformers loads. Touches disk. Raises DataError, SettingsError."""
    from training.checkpoint.weights import write_sharded

    task = _task(source)
    with storage_errors(folder):
        task.write_hugging_face(folder)
    stored = {**source.checkpoint.shapes, **source.checkpoint.buffer_shapes}
    names = {name: task.hugging_face_name(name) for name in stored}
    write_sharded(source.checkpoint, folder, source.kind, names, _SHARD_BYTES)


FORMS: dict[str, Callable[[Source, Path], None]] = {"hf": hugging_face, "safetensors": plain}
"""What writes each form into an empty folder."""


def _task(source: Source) -> HuggingFace:
    """The task that the run trained, built without its data. Raises SettingsError."""
    import torch

    settings = source.run.settings(source.checkpoint)
    if settings is None:
        raise _impossible("this checkpoint lies outside of its run, and holds no settings")
    family = settings["model"]["family"]
    if is_custom(family):
        custom_task.add_search_folder(settings["model"].get("folder"))
    elif family not in FAMILIES:
        raise _impossible(f"model family '{family}' is not known")
    config = config_of(family)
    context = Context(
        seed=settings["train"]["seed"],
        eval_share=settings["eval"]["share"],
        folder=source.run.folder,
        device=torch.device("cpu"),
    )
    model = config.Model.model_validate(settings["model"])
    data = config.Data.model_validate(settings["data"])
    task = task_class(family)(model, data, context)
    if not isinstance(task, HuggingFace):
        kind = "task" if is_custom(family) else "family"
        raise _impossible(f"transformers has no model of the {kind} '{family}'")
    return task


def _impossible(why: str) -> SettingsError:
    return SettingsError(
        [
            Diagnostic(
                f"--format hf is not possible: {why}",
                value="hf",
                where="--format hf",
                allowed="safetensors",
                fix=f"{PROGRAM} export RUN --format safetensors",
            )
        ]
    )
