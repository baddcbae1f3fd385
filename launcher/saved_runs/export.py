"""Export formats: the model of a checkpoint as other programs load it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base import disk, ending
from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, nearest_match
from launcher.run_folder import records, run_folder
from launcher.saved_runs import saved_model
from launcher.saved_runs.saved_model import SavedModel
from launcher.saved_runs.saved_run import SavedRun
from models.base import HasBaseWeights, HasHuggingFaceFormat
from models.catalog import is_custom
from training.checkpoint.base_weights import has_adapters
from training.logging.strict_json import encode
from training.storage import storage_errors

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint


@dataclass(frozen=True)
class ExportSource:
    """The model to export, and the checkpoint with its tensors."""

    model: SavedModel
    checkpoint: Checkpoint
    metrics: Mapping[str, Any] | None
    """The metrics of the evaluation at the checkpoint's step; None: there is none."""


def plain(source: ExportSource, folder: Path) -> None:
    """Write model.safetensors by parameter name, config.json, and the files that `predict` needs.

    Disk access.
    """
    from training.checkpoint.manifest import MODEL
    from training.checkpoint.weights import write_weights

    model, checkpoint = source.model, source.checkpoint
    manifest, settings = checkpoint.manifest, model.settings
    of_model = {} if settings is None else settings["model"]
    shapes = checkpoint.shapes
    if settings is not None and of_model.get("quantize") and model.base is None:
        shapes = _write_unquantized(source, folder / MODEL)
        settings = {**settings, "model": {**of_model, "quantize": None}}
    else:
        write_weights(checkpoint, folder / MODEL, model.kind)
    config = {
        "family": of_model.get("family"),
        "size": of_model.get("size"),
        **({} if settings is None else saved_model.task_settings(settings)),
        "base": model.base,
        "parameters": sum(prod(shape) for shape in shapes.values()),
        "weights": model.kind,
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
        # What the task needs to be built without its data; the class of a custom task may be gone.
        names: Sequence[str] = ()
        if settings is not None:
            with suppress(SettingsError):
                names = getattr(saved_model.task_class_of(settings), "saved_files", ())
        files = [model.folder / name for name in names if model.folder is not None]
        for file in filter(Path.exists, files):
            copy = shutil.copytree if file.is_dir() else shutil.copyfile
            copy(file, folder / file.name)


def _write_unquantized(source: ExportSource, path: Path) -> Mapping[str, tuple[int, ...]]:
    """Write a model with its weights in 4 bits as fp32, like the others; the shapes of weights."""
    from models.common.initial_weights import save

    trained, step = source.model, source.checkpoint.manifest.step
    model = trained.load(trained.task("cpu"))
    with storage_errors(path):
        save(model, path, {"format": "pt", "kind": trained.kind, "step": str(step)})
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def hugging_face(source: ExportSource, folder: Path) -> None:
    """Write a folder that transformers loads. Disk access. Raises DataError, SettingsError."""
    from training.checkpoint.weights import write_sharded

    task = _task(source.model)
    if has_adapters(task):
        _write_adapted(task, source, folder, merged=True)
        return
    with storage_errors(folder):
        task.write_hugging_face(folder)
    stored = {**source.checkpoint.shapes, **source.checkpoint.buffer_shapes}
    names = {name: task.hugging_face_name(name) for name in stored}
    # The default shard size of Hugging Face's tools.
    write_sharded(source.checkpoint, folder, source.model.kind, names, 5 * 10**9)


def adapter(source: ExportSource, folder: Path) -> None:
    """Write a folder that peft loads. Disk access. Raises DataError, SettingsError."""
    _write_adapted(_task(source.model, "adapter"), source, folder, merged=False)


def _write_adapted(task: object, source: ExportSource, folder: Path, *, merged: bool) -> None:
    assert isinstance(task, HasBaseWeights)
    checkpoint, kind = source.checkpoint, source.model.kind
    stored = set(checkpoint.names(kind))
    weights = {
        name: checkpoint.tensor(kind if name in stored else saved_model.WEIGHT, name)
        for name in checkpoint.shapes
    }
    with storage_errors(folder):
        task.write_adapted(weights, folder, merged=merged)


FORMATS: dict[str, Callable[[ExportSource, Path], None]] = {
    "hf": hugging_face,
    "safetensors": plain,
    "adapter": adapter,
}
"""The function that writes each format into an empty folder."""


def invalid_format(format_name: str | None) -> list[Diagnostic]:
    """The error of --format; empty: it is valid."""
    if format_name in FORMATS:
        return []
    nearest = nearest_match(format_name, FORMATS) if format_name else None
    message, where = "export requires --format", "export"
    if format_name:
        message, where = f"unknown --format '{format_name}'", f"--format {format_name}"
    fix, where = f"--format {nearest or next(iter(FORMATS))}", f"command line: {where}"
    parts: dict[str, Any] = {"allowed": ", ".join(FORMATS), "did_you_mean": nearest, "fix": fix}
    return [Diagnostic(message, key="--format", value=format_name, where=where, **parts)]


def write(
    run: SavedRun, name: str | None, format_name: str, out: Path | None, where: str
) -> dict[str, Any]:
    """Write the checkpoint `name` of `run`, completely or not at all; the facts to print.

    `out`: the folder, set at `where`; None: export-FORMAT in the run folder, or beside a checkpoint
    outside of one. Disk access. Raises SettingsError, CheckpointError, StorageError, DataError.
    """
    path = run.chosen(name)
    folder = out or (run.folder or path.parent) / f"{run_folder.EXPORT}{format_name}"
    run_folder.check_free(folder, out)
    model, checkpoint = saved_model.open_checkpoint(run, path)
    if format_name != "safetensors":
        model.check_pretrained()
        task = _task(model, format_name)
        if format_name == "adapter" and not has_adapters(task):
            reason = "the run trained all weights, without model.lora"
            raise _unsupported(reason, format_name, ("hf", "safetensors"))
    metrics = None
    for line in records.metrics_lines(model.folder) if model.folder is not None else ():
        if (line["kind"], line["step"], line.get("split")) == ("eval", model.step, "val"):
            metrics = line["metrics"]
    source = ExportSource(model, checkpoint, metrics)
    # Adapters need less; merged into their base, weights need more.
    parameters = sum(prod(shape) for shape in checkpoint.shapes.values())
    needed = 4 * parameters if format_name != "adapter" else 0  # fp32
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
        "step": model.step,
        "weights": model.kind,
        "metrics": source.metrics,
        "files": {
            str(file.relative_to(folder)): file.stat().st_size
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        },
    }


def _task(model: SavedModel, format_name: str = "hf") -> HasHuggingFaceFormat:
    """The task of the run, built without its data. Raises SettingsError."""
    task = model.task("cpu")
    if not isinstance(task, HasHuggingFaceFormat):
        kind = "task" if is_custom(model.family) else "family"
        reason = f"transformers has no model for the {kind} '{model.family}'"
        raise _unsupported(reason, format_name)
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
