"""The command `verify`: replay a run and compare it bit by bit, or find why two runs differ."""

from __future__ import annotations

from functools import partial

from gearshift.launcher.base import exit_codes
from gearshift.launcher.commands import output
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.saved_runs import verify
from gearshift.launcher.saved_runs.rerun import RerunFailed
from gearshift.training.checkpoint.manifest import CheckpointError


def main(command_line: CommandLine) -> int:
    """Replay and compare; the exit code, 0 if they agree. Raises SettingsError."""
    announce = partial(output.announce, command_line)
    other = command_line.values.get("--against")
    try:
        if other is not None:
            from gearshift.launcher.saved_runs import against

            facts = against.compare_runs(
                (command_line.argument, other), command_line.args, announce
            )
            text = against.render(facts)
        else:
            facts = verify.verify(command_line.argument, command_line.args, announce)
            text = verify.render(facts)
    except (RerunFailed, CheckpointError) as error:
        return output.show_failure(command_line, error, verify.FAILURE)
    output.show(command_line, facts, text)
    if facts["identical"] or facts.get("agrees"):
        return exit_codes.DONE
    return exit_codes.FAILURE
