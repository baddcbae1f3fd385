"""The command `track`: upload the missing metrics of a finished run to W&B."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from launcher.base import ending, environment, exit_codes
from launcher.base.diagnostics import PROGRAM, SettingsError
from launcher.base.redaction import redact_variables
from launcher.config.command_line import CommandLine
from launcher.run_folder import lock, records, run_folder
from training.trackers import wandb_callback
from training.trackers.tracker_process import Message, TrackerProcess

_WAIT_S = 600.0


def main(command_line: CommandLine) -> int:
    """Upload; the exit code, 1 if the upload is incomplete. Raises SettingsError."""
    folder = Path(command_line.argument)
    if not run_folder.is_run_folder(folder):
        message, where = f"{folder} is not a run folder", f"command line: track {folder}"
        raise SettingsError.of(message, value=str(folder), where=where, allowed="a run folder")
    run_folder.check_existing(folder, f"command line: track {folder}")
    records.check(folder)
    ending.leave("the same command uploads the rest")
    with lock.hold(folder):
        url, failure = _upload(folder)
    if failure is not None:
        print(f"error: W&B: {failure}", file=sys.stderr)
        return exit_codes.FAILURE
    print(url)
    return exit_codes.DONE


def _upload(folder: Path) -> tuple[str | None, str | None]:
    """The URL of the W&B run, and why the upload is incomplete; None: it is complete."""
    result = _read(folder / run_folder.RESULT)
    is_completed = result.get("status") == "completed"
    tracker = TrackerProcess(wandb_callback.WANDB_MODULE)
    tracker.send(_start_message(folder, result))
    if lines := wandb_callback.lines_message(folder / run_folder.METRICS, {}):
        tracker.send(lines)
    tracker.send(
        wandb_callback.end_message(result, exit_codes.DONE if is_completed else exit_codes.FAILURE)
    )
    in_time = tracker.end(_WAIT_S)
    answers: dict[str, Message] = {message["kind"]: message for message in tracker.received()}
    url = answers["open"]["url"] if "open" in answers else None
    if "done" in answers:
        return url, None
    reason = f"not finished within {_WAIT_S:g} s" if in_time is False else "its process has ended"
    return url, answers["failed"]["why"] if "failed" in answers else reason


def _start_message(folder: Path, result: dict[str, Any]) -> Message:
    values = _read(folder / run_folder.ORIGINS)
    names = ("model", "mode", "engine", "parameters", "samples", "stage", "world_size")
    return wandb_callback.start_message(
        folder,
        wandb_callback.project_of(values.get("track", {}).get("value", ())),
        {key: setting["value"] for key, setting in values.items()},
        {key: f"{setting['layer']}: {setting['origin']}" for key, setting in values.items()},
        run={name: result[name] for name in names if name in result},
        tags=None,
        first_step=0,
        went_back=False,
        sync_command=f"{PROGRAM} track {shlex.quote(str(folder))}",
        mode="online",
    )


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of the run, with secrets redacted; empty if it does not exist.

    Raises SettingsError if it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return records.parse_object(path, redact_variables(text, environment.variables()))
