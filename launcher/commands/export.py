"""The command `export`: write the model of a checkpoint for other programs."""

from __future__ import annotations

import sys
from pathlib import Path

from launcher.base import exit_codes
from launcher.base.diagnostics import SettingsError
from launcher.config.command_line import CommandLine
from launcher.config.errors import about_data
from launcher.config.options import JSON
from launcher.run_folder import run_folder
from launcher.saved_runs import export, saved_run
from models.base import DataError
from training.checkpoint.manifest import CheckpointError
from training.logging.quantities import real, size
from training.logging.strict_json import encode
from training.storage import StorageError


def main(command_line: CommandLine) -> int:
    """Write the files and list them; the exit code. Raises SettingsError."""
    format_name = command_line.values.get("--format")
    if diagnostics := [*command_line.diagnostics, *export.invalid_format(format_name)]:
        raise SettingsError(diagnostics)
    assert format_name is not None and command_line.argument is not None
    run = saved_run.find_saved(command_line.argument, "export", command_line.args.sets)
    path = saved_run.chosen(run, command_line.values.get("--checkpoint"))
    folder = command_line.out or (run.folder or path.parent) / f"{run_folder.EXPORT}{format_name}"
    run_folder.check_free(folder, command_line.out)
    try:
        done = export.write(run, path, format_name, folder, _where(command_line.out))
    except (CheckpointError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_codes.FAILURE
    except DataError as error:
        raise about_data(error) from error
    as_json = JSON.flag in command_line.flags
    print(encode(done, indent=2) if as_json else _text(done))
    return exit_codes.DONE


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


def _where(out: Path | None) -> str:
    return f"command line: --out {out}" if out else "the default of --out"
