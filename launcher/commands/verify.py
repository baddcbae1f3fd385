"""The command `verify`: replay the last interval of a run and compare it bit by bit."""

from __future__ import annotations

import sys

from launcher.base import exit_codes
from launcher.config.command_line import CommandLine
from launcher.saved_runs import verify
from launcher.saved_runs.rerun import RerunFailed
from training.checkpoint.manifest import CheckpointError
from training.logging.printable import printable
from training.logging.strict_json import encode


def main(command_line: CommandLine) -> int:
    """Replay and compare; the exit code, 0 if they agree. Raises SettingsError."""
    as_json = command_line.as_json

    def announce(line: str) -> None:
        if not as_json and sys.stderr.isatty():
            print(line, file=sys.stderr, flush=True)

    try:
        result = verify.verify(command_line.argument, command_line.args, announce)
    except (RerunFailed, CheckpointError) as error:
        if as_json:
            print(encode(verify.failure_json(str(error)), indent=2))
        else:
            print(f"error: {error}", file=sys.stderr)
        return error.code if isinstance(error, RerunFailed) else exit_codes.FAILURE
    print(encode(verify.as_json(result), indent=2) if as_json else printable(verify.render(result)))
    return exit_codes.DONE if result.agrees else exit_codes.FAILURE
