"""Export formats: the model of a checkpoint as other programs load it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.launcher.base import disk, environment
from gearshift.launcher.base.diagnostics import CommandFailed, Diagnostic, SettingsError, unknown
from gearshift.launcher.base.temporary import MARK, temporary_folder
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.saved_runs import saved_model
from gearshift.launcher.saved_runs.saved_model import SavedModel, SavedRun
from gearshift.models.base import HasBaseWeights, HasHuggingFaceFormat, HasOnnxFormat, Task
from gearshift.models.common.data_reports import install_command
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.checkpoint.base_weights import has_adapters
from gearshift.training.logging.encoding import encode
from gearshift.training.storage import storage_errors

if TYPE_CHECKING:
    from gearshift.training.checkpoint.reader import Checkpoint


Notes = dict[str, str]
"""By title."""


def plain(model: SavedModel, checkpoint: Checkpoint, task: Task | None, folder: Path) -> None:
    """Write model.safetensors by parameter name, config.json, and the files that `predict` needs.

    Disk access.
    """
    from gearshift.training.checkpoint.manifest import MODEL
    from gearshift.training.checkpoint.reader import write_weights

    manifest = checkpoint.manifest
    write_weights(checkpoint, folder / MODEL, model.kind)
    config = {
        "family": model.family,
        "size": model.settings.get("model.size"),
        **model.task_settings(),
        "base": model.base,
        "parameters": sum(map(prod, checkpoint.shapes.values())),
        "weights": model.kind,
        "step": manifest.step,
        "samples": manifest.samples,
        "metrics": _metrics(model),
        "engine": manifest.engine,
        "world_size": manifest.world_size,
        "libraries": manifest.libraries,
    }
    path = folder / saved_model.EXPORT_CONFIG
    with storage_errors(path):
        path.write_text(encode(config, indent=2) + "\n", encoding="utf-8")
        # What the task needs to be built without its data; the class of a custom task may be gone.
        names: Sequence[str] = ()
        with suppress(SettingsError):
            names = getattr(model.task_class(), "saved_files", ())
        for name in names:
            file = model.folder / name
            if file.is_dir():
                shutil.copytree(file, folder / file.name)
            elif file.exists():
                shutil.copyfile(file, folder / file.name)


def hugging_face(
    model: SavedModel, checkpoint: Checkpoint, task: Task | None, folder: Path
) -> None:
    """Write a folder that transformers loads. Disk access. Raises DataError."""
    from gearshift.training.checkpoint.manifest import MODEL
    from gearshift.training.checkpoint.reader import write_weights

    if has_adapters(task):
        adapter(model, checkpoint, task, folder, merged=True)
        return
    assert isinstance(task, HasHuggingFaceFormat)
    with storage_errors(folder):
        task.write_hugging_face(folder)
    stored = [*checkpoint.shapes, *checkpoint.buffer_shapes]
    names = {name: task.hugging_face_name(name) for name in stored}
    write_weights(checkpoint, folder / MODEL, model.kind, names)


def adapter(
    model: SavedModel, checkpoint: Checkpoint, task: Task | None, folder: Path, merged: bool = False
) -> None:
    """Write a folder that peft loads, or the `merged` model. Disk access. Raises DataError."""
    assert isinstance(task, HasBaseWeights)
    kinds = dict.fromkeys(checkpoint.names(model.kind), model.kind)
    weights = {}
    for name in checkpoint.shapes:
        weights[name] = checkpoint.tensor(kinds.get(name, saved_model.WEIGHT), name)
    with storage_errors(folder):
        task.write_adapted(weights, folder, merged=merged)


def onnx(model: SavedModel, checkpoint: Checkpoint, task: Task | None, folder: Path) -> Notes:
    """Write model.onnx, and compare its outputs with those of the model.

    Disk access. Raises DataError, CommandFailed.
    """
    import torch
    from onnxruntime import InferenceSession

    assert isinstance(task, HasOnnxFormat)
    network, inputs = task.onnx_model(model.load(task))
    with torch.no_grad():
        expected = network.eval()(*inputs.values())
    if isinstance(expected, torch.Tensor):
        expected = {"output": expected}
    path = folder / "model.onnx"
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        network,
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=list(expected),
        dynamic_shapes=[{0: batch}] * len(inputs),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    with storage_errors(path):
        program.save(path)
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    errors = []
    for count in (None, 1):  # also for another batch than the exported one
        arrays = {name: values[:count].numpy() for name, values in inputs.items()}
        outputs = session.run(list(expected), arrays)
        for (name, values), array in zip(expected.items(), outputs, strict=True):
            difference = values[:count] - torch.from_numpy(array)
            error = float(difference.abs().max() / values.abs().max())
            if not error <= ONNX_TOLERANCE:  # NaN, too
                raise CommandFailed(
                    f"onnxruntime gives another '{name}' than the model: "
                    f"the difference is {error:.2g} of its largest value"
                )
            errors.append(error)
    return {"checked": f"onnxruntime gives the outputs of the model, within {max(errors):.1g}"}


ONNX_TOLERANCE = 1e-4
"""Largest difference of an output, as a share of its largest value: fp32 in another order."""


FORMATS: dict[str, Callable[[SavedModel, Checkpoint, Task | None, Path], Notes | None]] = {
    "hf": hugging_face,
    "safetensors": plain,
    "adapter": adapter,
    "onnx": onnx,
}
"""What writes each format into an empty folder, and may give notes for the user.

The task is built without its data; None for safetensors, which needs none.
"""


def invalid_format(format_name: str | None) -> list[Diagnostic]:
    """The error of --format; empty: it is valid."""
    if format_name in FORMATS:
        return []
    message = "" if format_name else "export requires --format"
    return [unknown("--format", format_name or "", FORMATS, message, key="--format")]


def _metrics(model: SavedModel) -> Facts | None:
    """The metrics of the evaluation at the step of the model; None: there is none."""
    metrics = None
    for line in RunReader(model.folder).metrics():
        if (line["kind"], line["step"], line.get("split")) == ("eval", model.step, "val"):
            metrics = line["metrics"]
    return metrics


def write(run: SavedRun, name: str | None, format_name: str, out: Path | None, where: str) -> Json:
    """Write the checkpoint `name` of `run`, completely or not at all; the facts to print.

    `out`: the folder, set at `where`; None: export-FORMAT in the run folder. Disk access. Raises
    SettingsError, CheckpointError, StorageError, DataError.
    """
    folder = out or run.folder / f"{run_folder.EXPORT}{format_name}"
    run_folder.check_unused(folder, where)
    model, checkpoint = saved_model.open_checkpoint(run, name)
    task = None if format_name == "safetensors" else _task(model, format_name)
    # Weights are fp32; an adapter needs less, and weights merged into their base more.
    needed = 0 if format_name == "adapter" else 4 * sum(map(prod, checkpoint.shapes.values()))
    disk.check_writable(folder, where, needed_bytes=needed)
    with (
        storage_errors(folder),
        disk.new_parents(folder),
        temporary_folder(f".{folder.name}.{MARK}", folder.parent) as hidden,
        environment.logged(lambda text: None),  # of torch about its own functions
    ):
        unfinished = hidden / folder.name
        unfinished.mkdir()
        notes = FORMATS[format_name](model, checkpoint, task, unfinished) or {}
        # Complete, or not there at all.
        unfinished.replace(folder)
    paths = filter(Path.is_file, sorted(folder.rglob("*")))
    files = {str(path.relative_to(folder)): path.stat().st_size for path in paths}
    return {
        "folder": str(folder),
        "format": format_name,
        "checkpoint": str(model.path),
        "step": model.step,
        "weights": model.kind,
        "metrics": _metrics(model),
        "files": files,
        "notes": notes,
    }


def _task(model: SavedModel, format_name: str) -> Task:
    """The task of the run, built without its data, of a model that the format can express.

    Raises SettingsError.
    """
    model.check_pretrained()
    task = model.task("cpu")
    is_adapted = has_adapters(task)
    supports = {
        "adapter": is_adapted,
        "hf": isinstance(task, HasHuggingFaceFormat),
        "safetensors": True,
        "onnx": isinstance(task, HasOnnxFormat),
    }
    where = f"command line: --format {format_name}"
    if not supports[format_name]:
        allowed = [name for name, is_supported in supports.items() if is_supported]
        adapters = "with adapters" if is_adapted else "without adapters"
        raise SettingsError.of(
            f"--format {format_name} is not supported for '{model.family}' trained {adapters}",
            value=format_name,
            where=where,
            allowed=", ".join(allowed),
            fix=f"--format {allowed[0]}",
        )
    if format_name == "onnx":
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if not find_spec(name)]
        if missing:
            raise SettingsError.of(
                f"--format onnx requires {', '.join(missing)}",
                value=format_name,
                where=where,
                fix=install_command("onnx"),
            )
    return task
