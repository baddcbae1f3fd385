"""The command `track`: upload the missing metrics of a finished run to its trackers."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from gearshift.launcher.base import disk, exit_codes, signals
from gearshift.launcher.base.diagnostics import SettingsError, invalid
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.render import ORIGINS
from gearshift.launcher.run_folder import checkpoint_search, lock, run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.training.settings import TRACK_PATTERN, TRACKER_FORMS
from gearshift.training.trackers.follow import Run
from gearshift.training.trackers.process import Trackers

_WAIT_S = 600.0


def main(command_line: CommandLine) -> int:
    """Upload; the exit code, 1 if an upload is incomplete. Raises SettingsError."""
    folder = Path(command_line.argument)
    to = command_line.values.get("--to")
    where = f"command line: track {folder}"
    if to and not re.fullmatch(TRACK_PATTERN, to):
        raise SettingsError([invalid("--to", to, TRACKER_FORMS)])
    if not run_folder.is_run_folder(folder):
        raise checkpoint_search.no_run(folder, where, "track")
    disk.check_writable(folder, where)
    reader = RunReader(folder, redacts=True)
    result = reader.check() or {}
    signals.leave("the same command uploads the rest")
    # A run that trains sends its metrics itself.
    with lock.hold(folder):
        values = reader.object(ORIGINS) or {}
        names = ("model", "mode", "engine", "parameters", "samples", "stage", "world_size")
        trackers_of_run = values.get("track", {}).get("value") or ["wandb"]
        run = Run(
            folder=folder.absolute(),
            track=[to] if to else trackers_of_run,
            settings={key: setting["value"] for key, setting in values.items()},
            origins={key: f"{each['layer']}: {each['origin']}" for key, each in values.items()},
            facts={name: result[name] for name in names if name in result},
        )
        errors: list[str] = []

        def report(kind: str, label: str, text: str) -> None:
            if kind == "notice":
                print(text)
            else:
                errors.append(f"{label}: {text}")

        trackers = Trackers(run, _WAIT_S, lambda kind, facts: errors.append(facts["text"]), report)
        trackers.begin(run)
        trackers.finish(_WAIT_S)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return exit_codes.FAILURE if errors else exit_codes.DONE
