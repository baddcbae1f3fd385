"""The command `verify`: replay the last interval of a run and compare it bit by bit."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from launcher.base import environment, exit_codes
from launcher.base.diagnostics import SettingsError
from launcher.config.command_line import CommandLine
from launcher.config.options import JSON
from launcher.run import affinity
from launcher.saved_runs import saved_run, verify
from launcher.saved_runs.replay import replay
from launcher.saved_runs.rerun import Rerun, resolved_as
from launcher.saved_runs.saved_run import SavedRun
from launcher.saved_runs.verify import Conditions, VerifyResult, choose
from training.checkpoint.manifest import CheckpointError
from training.logging.strict_json import encode


class ReplayFailed(Exception):
    """Nothing could be compared; `code` is the exit code."""

    def __init__(self, reason: str, code: int = exit_codes.FAILURE) -> None:
        super().__init__(reason)
        self.code = code


def main(command_line: CommandLine) -> int:
    """Replay and compare; the exit code, 0 if they agree. Raises SettingsError."""
    if command_line.diagnostics:
        raise SettingsError(command_line.diagnostics)
    as_json = JSON.flag in command_line.flags
    try:
        found = _verify(command_line, quiet=as_json)
    except (ReplayFailed, CheckpointError) as error:
        if as_json:
            print(encode(verify.failure_json(str(error)), indent=2))
        else:
            print(f"error: {error}", file=sys.stderr)
        return error.code if isinstance(error, ReplayFailed) else exit_codes.FAILURE
    print(encode(verify.as_json(found), indent=2) if as_json else verify.render(found).rstrip())
    return exit_codes.DONE if found.agrees else exit_codes.FAILURE


def _verify(command_line: CommandLine, quiet: bool) -> VerifyResult:
    assert command_line.argument is not None
    run = _run(command_line.argument, command_line.args.sets)
    assert run.folder is not None
    affinity.limit_spinning(environment.variables())  # before torch is imported
    last, interval, notes = choose(run)
    run.check_pretrained(last)
    settings = run.settings(last)
    assert settings is not None
    resolved = resolved_as(settings, last.manifest, command_line.args)
    conditions = Conditions(
        interval,
        resolved.settings.engine.name,
        resolved.batching.world_size,
        resolved.settings.precision,
    )
    notes = [*notes, *verify.nondeterminism(resolved)]
    if not quiet and sys.stderr.isatty():
        print(verify.render_start(conditions), file=sys.stderr, flush=True)
    with replay(interval, run.folder, resolved) as finished:
        _check(finished)
        return verify.compare_replay(conditions, run.folder, last, finished.folder, notes)


def _run(argument: str, sets: Sequence[str]) -> SavedRun:
    run = saved_run.find_saved(argument, "verify", sets)
    if run.folder is None or not run.checkpoints:
        message = f"'{argument}' is a checkpoint outside of its run folder"
        where = f"command line: verify {argument}"
        allowed = "a run folder, or a checkpoint in one"
        raise SettingsError.of(message, value=argument, where=where, allowed=allowed)
    return run


def _check(finished: Rerun) -> None:
    """Raises ReplayFailed if the replay did not finish, SettingsError for invalid data."""
    report = finished.report
    # A signal can interrupt a rank during an import, which then fails with an error of its own.
    is_stopped = report.exit_code in (exit_codes.INTERRUPTED, exit_codes.RUN_AGAIN)
    if finished.signals or is_stopped:
        is_interrupt = (
            signal.SIGINT in finished.signals or report.exit_code == exit_codes.INTERRUPTED
        )
        code = exit_codes.INTERRUPTED if is_interrupt else exit_codes.RUN_AGAIN
        raise ReplayFailed("the replay was stopped before it finished; nothing was written", code)
    if report.exit_code == exit_codes.DONE:
        return
    if report.exit_code == exit_codes.INVALID_INPUT:
        # Its other lines advise a run that trains, in a folder that is removed now.
        message = report.text.removeprefix("error: ").partition("\n")[0]
        allowed = "the data that the run was trained on; if it moved, --data PATH"
        is_data = "data" in message
        raise SettingsError.of(message, where="the replay", allowed=allowed if is_data else None)
    raise ReplayFailed("\n".join(filter(None, (f"the replay failed: {report.text}", report.trace))))
