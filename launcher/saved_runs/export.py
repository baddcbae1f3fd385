"""Export formats: the model of a checkpoint as other programs load it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base import disk, ending, environment
from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, nearest_match
from launcher.run import affinity
from launcher.run_folder import records
from launcher.saved_runs import saved_model
from launcher.saved_runs.saved_run import SavedRun
from models.base import HasBaseWeights, HasHuggingFaceFormat
from models.catalog import is_custom
from training.checkpoint.base_weights import has_adapters
from training.logging.strict_json import encode
from training.storage import storage_errors

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint

_SHARD_BYTES = 5 * 10**9
"""The default shard size of Hugging Face's tools."""
_FP32_BYTES = 4
_WEIGHT = "weight"


@dataclass(frozen=True)
class Source:
    """A run and the checkpoint to export."""

    run: SavedRun
    checkpoint: Checkpoint

    @property
    def kind(self) -> str:
        """Which weights: "weight", or "ema"; see saved_model.kind_of."""
        return saved_model.kind_of(self.checkpoint)

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
            if (line["kind"], line["step"], line.get("split")) == ("eval", step, "val"):
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
    """Write model.safetensors by parameter name, config.json, and the files that `predict` needs.

    Disk access.
    """
    from training.checkpoint import base_weights
    from training.checkpoint.manifest import MODEL
    from training.checkpoint.weights import write_weights

    write_weights(source.checkpoint, folder / MODEL, source.kind)
    manifest = source.checkpoint.manifest
    settings = source.run.settings(source.checkpoint)
    model = {} if settings is None else settings["model"]
    config = {
        "family": model.get("family"),
        "size": model.get("size"),
        **({} if settings is None else saved_model.task_settings(settings)),
        "base": source.checkpoint.facts.get(base_weights.FACT),
        "parameters": sum(prod(shape) for shape in source.checkpoint.shapes.values()),
        "weights": source.kind,
        "step": manifest.step,
        "samples": manifest.samples,
        "metrics": source.metrics,
        "engine": manifest.engine,
        "world_size": manifest.world_size,
        "libraries": manifest.libraries,
    }
    path = folder / saved_model.EXPORT_CONFIG
    with storage_errors(path):
        path.write_text(encode(config, indent=2) + "\n", encoding="utf-8")
        for file in _saved_files(settings, source.run.folder):
            copy = shutil.copytree if file.is_dir() else shutil.copyfile
            copy(file, folder / file.name)


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


def invalid_format(format_name: str | None) -> list[Diagnostic]:
    """The error of --format; empty: it is valid."""
    if format_name in FORMATS:
        return []
    near = nearest_match(format_name, FORMATS) if format_name else None
    message, where = "export requires --format", "export"
    if format_name:
        message, where = f"unknown --format '{format_name}'", f"--format {format_name}"
    return [
        Diagnostic(
            message,
            key="--format",
            value=format_name,
            where=f"command line: {where}",
            allowed=", ".join(FORMATS),
            did_you_mean=near,
            fix=f"--format {near or next(iter(FORMATS))}",
        )
    ]


def write(
    run: SavedRun, path: Path, format_name: str, folder: Path, where: str
) -> dict[str, object]:
    """Write `folder`, completely or not at all; the facts to print. Disk access.

    `where` sets the folder. Raises SettingsError, CheckpointError, StorageError, DataError.
    """
    affinity.limit_spinning(environment.variables())  # before torch is imported
    from training.checkpoint.reader import open_checkpoint

    source = Source(run, open_checkpoint(path))
    if format_name != "safetensors":
        run.check_pretrained(source.checkpoint)
    check(format_name, source)
    metrics = source.metrics
    needed = source.least_bytes if format_name != "adapter" else 0
    disk.check_writable(folder, where, needed_bytes=needed)
    disk.check_writable(folder.parent, where)
    with (
        storage_errors(folder),
        disk.new_parents(folder),
        ending.temporary_folder(f".{folder.name}.", folder.parent) as hidden,
    ):
        made = hidden / folder.name
        made.mkdir()
        FORMATS[format_name](source, made)
        made.replace(folder)
    return {
        "folder": str(folder),
        "format": format_name,
        "checkpoint": str(path),
        "step": source.checkpoint.manifest.step,
        "weights": source.kind,
        "metrics": metrics,
        "files": {
            str(file.relative_to(folder)): file.stat().st_size
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        },
    }


def _saved_files(settings: Mapping[str, Any] | None, run: Path | None) -> list[Path]:
    """The files and folders of the run that its task needs to be built without its data."""
    names: Sequence[str] = ()
    if settings is not None and run is not None:
        with suppress(
            SettingsError
        ):  # without the class of a custom task, its weights are exported
            names = getattr(saved_model.task_class_of(settings), "saved_files", ())
    return [file for name in names if run and (file := run / name).exists()]


def _task(source: Source, format_name: str = "hf") -> HasHuggingFaceFormat:
    """The task of the run, built without its data. Raises SettingsError."""
    settings = source.run.settings(source.checkpoint)
    task = saved_model.build_task(settings, source.run.folder, "cpu")
    if not isinstance(task, HasHuggingFaceFormat):
        assert settings is not None
        family = settings["model"]["family"]
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
