"""Proves that a run can be taken again: replays its last stretch, and compares every bit."""

from __future__ import annotations

import os
import signal
import sys

from launcher.base import exit_codes
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config.command_line import CommandLine
from launcher.config.options import JSON
from launcher.resume import saved_run
from launcher.resume.saved_run import SavedRun
from launcher.run import affinity
from launcher.verify import result as proof
from launcher.verify.interval import choose
from launcher.verify.replay import Replay, replay, resolved_as
from launcher.verify.result import Conditions, Proof
from training.checkpoint.manifest import CheckpointError
from training.logging.strict_json import encode


class Unproven(Exception):
    """Nothing could be compared; the text says why, `code` is what to end with."""

    def __init__(self, why: str, code: int = exit_codes.FAILURE) -> None:
        super().__init__(why)
        self.code = code


def main(command_line: CommandLine) -> int:
    """Replay and compare; the exit code: 0 where they agree. Raises SettingsError."""
    if command_line.diagnostics:
        raise SettingsError(command_line.diagnostics)
    for_machines = JSON.flag in command_line.flags
    try:
        found = _verify(command_line, quiet=for_machines)
    except (Unproven, CheckpointError) as fault:
        if for_machines:
            print(encode(proof.failure(str(fault)), indent=2))
        else:
            print(f"error: {fault}", file=sys.stderr)
        return fault.code if isinstance(fault, Unproven) else exit_codes.FAILURE
    print(encode(proof.as_json(found), indent=2) if for_machines else proof.text(found).rstrip())
    return exit_codes.DONE if found.agrees else exit_codes.FAILURE


def _verify(command_line: CommandLine, quiet: bool) -> Proof:
    assert command_line.argument is not None
    run = _run(command_line.argument)
    assert run.folder is not None
    affinity.share_politely(os.environ)  # before torch is imported
    last, stretch, notes = choose(run)
    settings = run.settings(last)
    assert settings is not None
    resolved = resolved_as(settings, last.manifest, command_line.args)
    conditions = Conditions(
        stretch,
        resolved.settings.engine.name,
        resolved.batching.world_size,
        resolved.settings.precision,
    )
    notes = [*notes, *proof.chance(resolved)]
    if not quiet and sys.stderr.isatty():
        print(proof.announced(conditions), file=sys.stderr, flush=True)
    with replay(stretch, run.folder, resolved) as again:
        _check(again)
        return proof.prove(conditions, run.folder, last, again.folder, notes)


def _run(word: str) -> SavedRun:
    """The run that was named. Raises SettingsError."""
    run = saved_run.find(word, "verify")
    if run.folder is None or not run.checkpoints:
        what = f"'{word}' is a checkpoint without its run; verify needs both"
        place = f"the command line: verify {word}"
        raise SettingsError([Diagnostic(what, value=word, where=place, allowed="a run folder")])
    return run


def _check(again: Replay) -> None:
    """Raises Unproven where the replay did not come to its end, SettingsError for bad data."""
    ending = again.report
    # A signal may end a rank in the middle of an import, which then fails in its own way.
    if again.signals or ending.exit_code in (exit_codes.INTERRUPTED, exit_codes.RUN_AGAIN):
        is_interrupt = signal.SIGINT in again.signals or ending.exit_code == exit_codes.INTERRUPTED
        code = exit_codes.INTERRUPTED if is_interrupt else exit_codes.RUN_AGAIN
        raise Unproven("the replay was stopped before its end", code)
    if ending.exit_code == exit_codes.DONE:
        return
    if ending.exit_code == exit_codes.INVALID_INPUT:
        raise SettingsError([Diagnostic(ending.text.removeprefix("error: "))])
    raise Unproven("\n".join(filter(None, (f"the replay failed: {ending.text}", ending.trace))))
