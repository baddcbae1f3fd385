"""The command `export`: write the model of a checkpoint for other programs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp

from launcher import export
from launcher.base import disk, environment, exit_codes
from launcher.base.diagnostics import Diagnostic, SettingsError, nearest_match
from launcher.config.command_line import CommandLine
from launcher.config.errors import about_data
from launcher.config.options import JSON
from launcher.export import FORMATS
from launcher.resume import find, saved_model
from launcher.resume.find import SavedRun
from launcher.run import affinity
from launcher.run_folder import run_folder
from models.base import DataError
from training.checkpoint.manifest import CheckpointError
from training.logging.quantities import real, size
from training.logging.strict_json import encode
from training.storage import StorageError, storage_errors


def main(command_line: CommandLine) -> int:
    """Write the files and list them; the exit code. Raises SettingsError."""
    format_name = command_line.values.get("--format")
    if diagnostics := [*command_line.diagnostics, *_invalid_format(format_name)]:
        raise SettingsError(diagnostics)
    assert format_name is not None and command_line.argument is not None
    run = find.find_saved(command_line.argument, "export", command_line.args.sets)
    path = saved_model.chosen(run, command_line.values.get("--checkpoint"))
    folder = command_line.out or (run.folder or path.parent) / f"{run_folder.EXPORT}{format_name}"
    run_folder.check_free(folder, command_line.out)
    try:
        done = _export(run, path, format_name, folder, command_line.out)
    except (CheckpointError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_codes.FAILURE
    except DataError as error:
        raise about_data(error) from error
    as_json = JSON.flag in command_line.flags
    print(encode(done, indent=2) if as_json else _text(done))
    return exit_codes.DONE


def _export(
    run: SavedRun, path: Path, format_name: str, folder: Path, out: Path | None
) -> dict[str, object]:
    """Write `folder`, completely or not at all; the facts to print."""
    affinity.limit_spinning(environment.variables())  # before torch is imported
    from training.checkpoint.reader import open_checkpoint

    source = export.Source(run, open_checkpoint(path))
    if format_name != "safetensors":
        run.check_pretrained(source.checkpoint)
    export.check(format_name, source)
    metrics = source.metrics
    needed = source.least_bytes if format_name != "adapter" else 0
    disk.check_writable(folder, _where(out), needed_bytes=needed)
    disk.check_writable(folder.parent, _where(out))
    with storage_errors(folder), disk.new_parents(folder):
        hidden = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        made = hidden / folder.name
        try:
            made.mkdir()
            FORMATS[format_name](source, made)
            made.replace(folder)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
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


def _text(done: dict[str, object]) -> str:
    metrics, files = done["metrics"], done["files"]
    assert isinstance(files, dict)
    lines = [f"exported step {done['step']} to {done['folder']}"]
    if done["weights"] == "ema":
        lines.append("  weights  EMA (train.ema), as in evaluation")
    if isinstance(metrics, dict):
        numbers = (f"{k} {real(v)}" for k, v in metrics.items() if isinstance(v, float))
        lines.append(f"  metrics  {', '.join(numbers)}")
    lines.append("  files    " + ", ".join(f"{name} ({size(n)})" for name, n in files.items()))
    return "\n".join(lines)


def _invalid_format(format_name: str | None) -> list[Diagnostic]:
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


def _where(out: Path | None) -> str:
    return f"command line: --out {out}" if out else "the default of --out"
