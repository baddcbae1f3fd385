"""The command `track`: upload the missing metrics of a finished run to its trackers."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.base import ending, exit_codes
from launcher.base.diagnostics import PROGRAM, SettingsError, nearest_match
from launcher.config.command_line import CommandLine
from launcher.run_folder import lock, run_folder
from launcher.run_folder.reader import RunReader
from training.settings import TRACK_PATTERN, TRACKERS
from training.trackers.process_tracker import Service, end_message, lines_message, start_message
from training.trackers.tracker_process import Message, TrackerProcess

_WAIT_S = 600.0
_DEFAULT = "wandb"
_NO_SERVICE = "tensorboard"
"""Its files are written by the run itself."""


def main(command_line: CommandLine) -> int:
    """Upload; the exit code, 1 if an upload is incomplete. Raises SettingsError."""
    folder, to = Path(command_line.argument), command_line.values.get("--to")
    forms = [entry.form for name, entry in TRACKERS.items() if name != _NO_SERVICE]
    if to and (not re.fullmatch(TRACK_PATTERN, to) or to == _NO_SERVICE):
        name, colon, project = to.partition(":")
        nearest = nearest_match(name, [name for name in TRACKERS if name != _NO_SERVICE])
        line = nearest and f"--to {nearest}{colon}{project}"
        raise SettingsError.of(
            f"--to {to} is no tracker with a server",
            value=to,
            where=f"command line: --to {to}",
            allowed=", ".join(forms),
            did_you_mean=nearest,
            fix=line if line and re.fullmatch(TRACK_PATTERN, line.removeprefix("--to ")) else None,
        )
    if not run_folder.is_run_folder(folder):
        message, where = f"{folder} is not a run folder", f"command line: track {folder}"
        raise SettingsError.of(message, value=str(folder), where=where, allowed="a run folder")
    run_folder.check_existing(folder, f"command line: track {folder}")
    RunReader(folder).check()
    ending.leave("the same command uploads the rest")
    code = exit_codes.DONE
    with lock.hold(folder):
        values = RunReader(folder, redacts=True).origins()
        for text in [to] if to else _trackers(values.get("track", {}).get("value", ())):
            name, _, project = text.partition(":")
            service = importlib.import_module(TRACKERS[name].module).SERVICE
            url, failure = _upload(folder, service, values, project or None)
            if failure is None:
                print(url)
            else:
                print(f"error: {service.label}: {failure}", file=sys.stderr)
                code = exit_codes.FAILURE
    return code


def _trackers(track: Sequence[str]) -> Sequence[str]:
    """The trackers of the setting `track` that have a server; W&B if there is none."""
    return [text for text in track if text.partition(":")[0] != _NO_SERVICE] or [_DEFAULT]


def _upload(
    folder: Path, service: Service, values: dict[str, Any], project: str | None
) -> tuple[str | None, str | None]:
    """The URL of the tracked run, and why the upload is incomplete; None: it is complete."""
    result = RunReader(folder, redacts=True).result() or {}
    is_completed = result.get("status") == "completed"
    tracker = TrackerProcess(service.module)
    tracker.send(_start_message(folder, result, values, project))
    if lines := lines_message(folder / run_folder.METRICS, {}):
        tracker.send(lines)
    tracker.send(end_message(result, exit_codes.DONE if is_completed else exit_codes.FAILURE))
    in_time = tracker.end(_WAIT_S)
    answers: dict[str, Message] = {message["kind"]: message for message in tracker.received()}
    url = answers["open"]["url"] if "open" in answers else None
    if "done" in answers:
        return url, None
    reason = f"not finished within {_WAIT_S:g} s" if in_time is False else "its process has ended"
    return url, answers["failed"]["why"] if "failed" in answers else reason


def _start_message(
    folder: Path, result: Mapping[str, Any], values: dict[str, Any], project: str | None
) -> Message:
    names = ("model", "mode", "engine", "parameters", "samples", "stage", "world_size")
    return start_message(
        folder,
        project,
        {key: setting["value"] for key, setting in values.items()},
        {key: f"{setting['layer']}: {setting['origin']}" for key, setting in values.items()},
        run={name: result[name] for name in names if name in result},
        tags=None,
        first_step=0,
        went_back=False,
        sync_command=f"{PROGRAM} track {shlex.quote(str(folder))}",
        mode="online",
    )
