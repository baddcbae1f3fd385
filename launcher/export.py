"""Export formats: the model of a checkpoint as other programs load it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import PROGRAM, SettingsError
from launcher.config import custom_task
from launcher.config.custom_task import task_class
from launcher.config.schema import config_of
from launcher.resume.find import SavedRun
from launcher.run_folder import records
from models.base import Context, HasBaseWeights, HasHuggingFaceFormat
from models.catalog import FAMILIES, is_custom
from training.checkpoint.base_weights import has_adapters
from training.logging.strict_json import encode
from training.storage import storage_errors

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint

_SHARD_BYTES = 5 * 10**9
"""The default shard size of Hugging Face's tools."""
_FP32_BYTES = 4
_AVERAGE, _WEIGHT = "ema", "weight"


@dataclass(frozen=True)
class Source:
    """A run and the checkpoint to export."""

    run: SavedRun
    checkpoint: Checkpoint

    @property
    def kind(self) -> str:
        """Which weights: the EMA if the run has one, since evaluation uses it."""
        return _AVERAGE if _AVERAGE in self.checkpoint.kinds else _WEIGHT

    @property
    def least_bytes(self) -> int:
        """The bytes of all weights in fp32, without adapters merged into a base."""
        return _FP32_BYTES * sum(prod(shape) for shape in self.checkpoint.shapes.values())

    @property
    def metrics(self) -> Mapping[str, Any] | None:
        """The metrics of the evaluation at the checkpoint's step; None: there is none.

        Reads the disk. Raises SettingsError if metrics.jsonl is damaged.
        """
        if self.run.folder is None:
            return None
        step, found = self.checkpoint.manifest.step, None
        for line in records.metrics_lines(self.run.folder):
            if (line["kind"], line["step"]) == ("eval", step):
                found = line["metrics"]
        return found


def check(format_name: str, source: Source) -> None:
    """Check that `source` can be exported, before writing. Raises SettingsError."""
    if format_name == "safetensors":
        return
    if not has_adapters(_task(source, format_name)) and format_name == "adapter":
        reason = "the run trained all weights, without model.lora"
        raise _unsupported(reason, format_name, ("hf", "safetensors"))


def plain(source: Source, folder: Path) -> None:
    """Write model.safetensors by parameter name, and config.json. Disk access."""
    from training.checkpoint.manifest import MODEL
    from training.checkpoint.weights import write_weights

    write_weights(source.checkpoint, folder / MODEL, source.kind)
    manifest = source.checkpoint.manifest
    settings = source.run.settings(source.checkpoint) or {}
    model = settings.get("model", {})
    config = {
        "family": model.get("family"),
        "size": model.get("size"),
        "model": model,
        "parameters": sum(prod(shape) for shape in source.checkpoint.shapes.values()),
        "weights": source.kind,
        "step": manifest.step,
        "samples": manifest.samples,
        "metrics": source.metrics,
        "engine": manifest.engine,
        "world_size": manifest.world_size,
        "libraries": manifest.libraries,
    }
    path = folder / "config.json"
    with storage_errors(path):
        path.write_text(encode(config, indent=2) + "\n", encoding="utf-8")


def hugging_face(source: Source, folder: Path) -> None:
    """Write a folder that transformers loads. Disk access. Raises DataError, SettingsError."""
    from training.checkpoint.weights import write_sharded

    task = _task(source)
    if has_adapters(task):
        _write_adapted(task, source, folder, merged=True)
        return
    with storage_errors(folder):
        task.write_hugging_face(folder)
    stored = {**source.checkpoint.shapes, **source.checkpoint.buffer_shapes}
    names = {name: task.hugging_face_name(name) for name in stored}
    write_sharded(source.checkpoint, folder, source.kind, names, _SHARD_BYTES)


def adapter(source: Source, folder: Path) -> None:
    """Write a folder that peft loads. Disk access. Raises DataError, SettingsError."""
    _write_adapted(_task(source, "adapter"), source, folder, merged=False)


def _write_adapted(task: object, source: Source, folder: Path, *, merged: bool) -> None:
    assert isinstance(task, HasBaseWeights)
    found, stored = source.checkpoint, set(source.checkpoint.names(source.kind))
    weights = {
        name: found.tensor(source.kind if name in stored else _WEIGHT, name)
        for name in found.shapes
    }
    with storage_errors(folder):
        task.write_adapted(weights, folder, merged=merged)


FORMATS: dict[str, Callable[[Source, Path], None]] = {
    "hf": hugging_face,
    "safetensors": plain,
    "adapter": adapter,
}
"""The function that writes each format into an empty folder."""


def _task(source: Source, format_name: str = "hf") -> HasHuggingFaceFormat:
    """The task of the run, built without its data. Raises SettingsError."""
    import torch

    settings = source.run.settings(source.checkpoint)
    if settings is None:
        raise _unsupported(
            "the checkpoint is outside of its run folder and has no settings", format_name
        )
    family = settings["model"]["family"]
    if is_custom(family):
        custom_task.add_search_folder(settings["model"].get("folder"))
    elif family not in FAMILIES:
        raise _unsupported(f"unknown model family '{family}'", format_name)
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
    if not isinstance(task, HasHuggingFaceFormat):
        kind = "task" if is_custom(family) else "family"
        raise _unsupported(f"transformers has no model for the {kind} '{family}'", format_name)
    return task


def _unsupported(
    reason: str, format_name: str, supported: Sequence[str] = ("safetensors",)
) -> SettingsError:
    return SettingsError.of(
        f"--format {format_name} is not supported: {reason}",
        value=format_name,
        where=f"command line: --format {format_name}",
        allowed=", ".join(supported),
        fix=f"{PROGRAM} export RUN --format {supported[0]}",
    )
