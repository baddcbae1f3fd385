"""The command `verify`: replay a run and compare it bit by bit, or find why two runs differ."""

from __future__ import annotations

from functools import partial

from gearshift.launcher.base import exit_codes
from gearshift.launcher.commands import output
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.saved_runs import verify


def main(command_line: CommandLine) -> int:
    """Replay and compare; the exit code, 0 if they agree. Raises SettingsError, CommandFailed."""
    announce = partial(output.announce, command_line)
    run = command_line.argument
    other = command_line.values.get("--against")
    if other is None:
        facts = verify.verify(run, command_line.args, announce)
        text = verify.render(facts)
    else:
        from gearshift.launcher.saved_runs import against

        facts = against.compare_runs((run, other), command_line.args, announce)
        text = against.render(facts)
    output.show(command_line, facts, text)
    if facts["identical"] or facts.get("agrees"):
        return exit_codes.DONE
    return exit_codes.FAILURE
