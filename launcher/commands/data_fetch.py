"""Fetches the data that settings declare, and trains nothing."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace

from launcher.base import exit_codes
from launcher.base.diagnostics import PROGRAM, SettingsError, as_json, render
from launcher.config import machine
from launcher.config.command_line import CommandLine
from launcher.config.options import JSON
from launcher.config.provenance import Resolved
from launcher.config.resolve import resolve
from launcher.download.console import console
from launcher.download.errors import FetchError
from launcher.download.fetch import Fetched, fetch
from launcher.download.progress import undrawn
from training.logging.strict_json import encode

_PLACE = "data fetch"


def main(command_line: CommandLine) -> int:
    """Fetch, and tell what is there; the exit code. Raises SettingsError."""
    resolved = _resolved(command_line)
    for_machines = JSON.flag in command_line.flags
    silent = nullcontext((lambda text: None, undrawn))
    try:
        with silent if for_machines else console(sys.stdout) as (tell, draw):
            found = fetch(resolved.settings.download, tell, draw)
            for one in found:
                if not one.is_new:
                    tell(one.line)
    except FetchError as error:
        if for_machines:
            print(encode({"diagnostics": as_json([error.fault])}, indent=2))
        else:
            print(render([error.fault]), file=sys.stderr)
        return exit_codes.FAILURE
    if for_machines:
        print(encode([_plain(one) for one in found], indent=2))
    else:
        print(_next(command_line, resolved))
    return exit_codes.DONE


def _resolved(command_line: CommandLine) -> Resolved:
    """The settings of a run that would fetch. Raises SettingsError."""
    options = {**command_line.args.options, "download.fetch": (_PLACE, "true")}
    if command_line.out is not None:
        options["download.folder"] = ("--out", str(command_line.out))
    diagnostics = list(command_line.diagnostics)
    try:
        resolved = resolve(
            replace(command_line.args, options=options), machine.detect_machine(), world_size=1
        )
    except SettingsError as error:
        diagnostics += error.diagnostics
    if diagnostics:
        raise SettingsError(diagnostics)
    return resolved


def _next(command_line: CommandLine, resolved: Resolved) -> str:
    """What to type to train on it."""
    words = command_line.args
    typed = ["--model", words.model] if words.model else []
    path = getattr(resolved.settings.data, "path", None)
    for config in words.configs:
        typed += ["--config", str(config)]
    typed += ["--download-data"] if path is None else ["--data", str(path)]
    return f"train on it:  {PROGRAM} {shlex.join(typed)}"


def _plain(one: Fetched) -> dict[str, object]:
    return {**asdict(one), "path": str(one.path)}
