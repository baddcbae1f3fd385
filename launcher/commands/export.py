"""Writes the model of a checkpoint in a form that other programs load."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from launcher import export
from launcher.base import environment, exit_codes
from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, nearest_match
from launcher.config.command_line import CommandLine
from launcher.config.options import JSON
from launcher.export import FORMS
from launcher.resume import saved_run
from launcher.resume.saved_run import SavedRun
from launcher.run import affinity
from launcher.run_folder import run_folder
from models.base import DataError
from training.checkpoint import retention
from training.checkpoint.manifest import CheckpointError
from training.logging.quantities import real, size
from training.logging.strict_json import encode
from training.storage import StorageError, storage_errors


def main(command_line: CommandLine) -> int:
    """Write the files, and say what they hold; the exit code. Raises SettingsError."""
    form = command_line.values.get("--format")
    if diagnostics := [*command_line.diagnostics, *_wrong_form(form)]:
        raise SettingsError(diagnostics)
    assert form is not None and command_line.argument is not None
    run = saved_run.find(command_line.argument, "export")
    path = _chosen(run, command_line.values.get("--checkpoint"))
    folder = command_line.out or (run.folder or path.parent) / f"{run_folder.EXPORT}{form}"
    _check_free(folder, command_line.out)
    try:
        done = _export(run, path, form, folder)
    except (CheckpointError, StorageError) as fault:
        print(f"error: {fault}", file=sys.stderr)
        return exit_codes.FAILURE
    except DataError as fault:
        raise SettingsError([_of_data(fault)]) from fault
    for_machines = JSON.flag in command_line.flags
    print(encode(done, indent=2) if for_machines else _text(done))
    return exit_codes.DONE


def _export(run: SavedRun, path: Path, form: str, folder: Path) -> dict[str, object]:
    """Write `folder`, whole or not at all; what is told of it."""
    affinity.share_politely(environment.variables())  # before torch is imported
    from training.checkpoint.reader import open_checkpoint

    source = export.Source(run, open_checkpoint(path))
    export.check(form, source)
    made = folder.with_name(f".{folder.name}.new")
    with storage_errors(made):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
    try:
        FORMS[form](source, made)
        with storage_errors(folder):
            made.replace(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return {
        "folder": str(folder),
        "format": form,
        "checkpoint": str(path),
        "step": source.checkpoint.manifest.step,
        "weights": source.kind,
        "metrics": source.metrics,
        "files": {file.name: file.stat().st_size for file in sorted(folder.iterdir())},
    }


def _text(done: dict[str, object]) -> str:
    metrics, files = done["metrics"], done["files"]
    assert isinstance(files, dict)
    lines = [f"exported step {done['step']} to {done['folder']}"]
    if done["weights"] == "ema":
        lines.append("  weights  their moving average (train.ema), which evaluation used")
    if isinstance(metrics, dict):
        numbers = (f"{k} {real(v)}" for k, v in metrics.items() if isinstance(v, float))
        lines.append(f"  metrics  {', '.join(numbers)}")
    lines.append("  files    " + ", ".join(f"{name} ({size(n)})" for name, n in files.items()))
    return "\n".join(lines)


def _wrong_form(form: str | None) -> list[Diagnostic]:
    if form in FORMS:
        return []
    near = nearest_match(form, FORMS) if form else None
    return [
        Diagnostic(
            f"--format '{form}' is not known" if form else "export needs to know the format",
            key="--format",
            value=form,
            where=f"the command line: --format {form}" if form else "the command line: export",
            allowed=", ".join(FORMS),
            did_you_mean=near,
            fix=f"--format {near or next(iter(FORMS))}",
        )
    ]


def _chosen(run: SavedRun, word: str | None) -> Path:
    """The checkpoint that was asked for; without a word the best one, or the last."""
    if word is None:
        word = retention.BEST if run.best is not None else retention.LAST
        if run.named is not None:
            return run.named
    if word == retention.BEST and run.best is not None:
        return run.best
    if word == retention.LAST and run.checkpoints:
        return run.checkpoints[max(run.checkpoints)]
    if word.isdigit() and int(word) in run.checkpoints:
        return run.checkpoints[int(word)]
    steps = [str(step) for step in run.checkpoints]
    names = ([retention.BEST] * (run.best is not None)) + [retention.LAST, *steps]
    raise SettingsError(
        [
            Diagnostic(
                f"there is no checkpoint '{word}' in {run.folder or run.named}",
                value=word,
                where=f"--checkpoint {word}",
                allowed=", ".join(names),
                did_you_mean=nearest_match(word, names),
            )
        ]
    )


def _check_free(folder: Path, asked: Path | None) -> None:
    """Raises SettingsError where `folder` holds something, or is none."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    what = f"{folder} is not empty" if folder.is_dir() else f"{folder} is a file"
    place = f"--out {asked}" if asked else f"no --out was given; {PROGRAM} export writes there"
    allowed = "a new or empty folder"
    raise SettingsError([Diagnostic(what, value=str(folder), where=place, allowed=allowed)])


def _of_data(fault: DataError) -> Diagnostic:
    return Diagnostic(fault.message, where=fault.where or None, allowed=fault.allowed or None)
