"""Sends to W&B what it lacks of a run that is over, or was broken off."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from launcher.base import environment, exit_codes
from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.base.redaction import redact_variables
from launcher.config.command_line import CommandLine
from launcher.resume.find import holds_run
from launcher.run_folder import lock, run_folder
from training.trackers import wandb_callback
from training.trackers.tracker_process import Message, TrackerProcess
from training.trackers.wandb_session import ENVIRONMENT

_WAIT_S = 600.0


def main(command_line: CommandLine) -> int:
    """Send; the exit code: 1 where the server does not take all of it. Raises SettingsError."""
    if command_line.diagnostics:
        raise SettingsError(command_line.diagnostics)
    assert command_line.argument is not None
    folder = Path(command_line.argument)
    if not holds_run(folder):
        what, place = f"{folder} is no run folder", f"the command line: track {folder}"
        raise SettingsError(
            [Diagnostic(what, value=str(folder), where=place, allowed="a run folder")]
        )
    with lock.hold(folder):
        url, fault = _send(folder)
    if fault is not None:
        print(f"error: W&B: {fault}", file=sys.stderr)
        return exit_codes.FAILURE
    print(url)
    return exit_codes.DONE


def _send(folder: Path) -> tuple[str | None, str | None]:
    """Where the W&B run is, and what kept it from being complete."""
    result = _read(folder / run_folder.RESULT)
    ended = result.get("status") == "completed"
    companion = TrackerProcess(wandb_callback.WANDB_MODULE, ENVIRONMENT)
    companion.send(_plan(folder, result))
    if lines := wandb_callback.lines_message(folder / run_folder.METRICS, {}):
        companion.send(lines)
    companion.send(
        wandb_callback.end_message(result, exit_codes.DONE if ended else exit_codes.FAILURE)
    )
    in_time = companion.end(_WAIT_S)
    told: dict[str, Message] = {message["kind"]: message for message in companion.heard()}
    url = told["open"]["url"] if "open" in told else None
    if "done" in told:
        return url, None
    late = f"not all was sent within {_WAIT_S:g} s" if in_time is False else "its process has ended"
    return url, told["failed"]["why"] if "failed" in told else late


def _plan(folder: Path, result: dict[str, Any]) -> Message:
    values = _read(folder / run_folder.ORIGINS)
    names = ("model", "mode", "engine", "parameters", "samples", "stage", "world_size")
    return wandb_callback.start_message(
        folder,
        wandb_callback.project_of(values.get("track", {}).get("value", ())),
        {key: one["value"] for key, one in values.items()},
        {key: f"{one['layer']}: {one['origin']}" for key, one in values.items()},
        run={name: result[name] for name in names if name in result},
        tags=None,
        first_step=0,
        went_back=False,
        send=f"{PROGRAM} track {folder}",
        mode="online",
    )


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of the run, without what is secret here; nothing where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    found: dict[str, Any] = json.loads(redact_variables(text, environment.variables()))
    return found
