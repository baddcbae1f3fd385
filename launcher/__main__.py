"""`python -m launcher`: run one command line."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from gearshift.launcher.base import environment, exit_codes, signals
from gearshift.launcher.base.signals import ProcessPhase, Stopped
from gearshift.slurm.environment import JOB_VARIABLE, InvalidEnvironment

if TYPE_CHECKING:
    from gearshift.launcher.config.command_line import CommandLine

_HELP = "help"
"""`help COMMAND` is `COMMAND --help`."""
_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Of a stream that takes no more; an error of a file that cannot be opened has its name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code. Prints errors to stderr."""
    # Imported here, after `program` has installed the signal handlers: imports take time.
    with signals.phase(ProcessPhase.IMPORTS):
        command_line = read(sys.argv[1:] if argv is None else argv)
    try:
        with signals.phase(ProcessPhase.COMMAND) as handler:
            code = _run(command_line)
            sys.stdout.flush()
            return code
    except (Exception, KeyboardInterrupt, Stopped) as error:
        if handler.caused(error):
            from gearshift.launcher.base.diagnostics import say

            handler.clean_up()
            say(handler.text, sys.stderr)
            return handler.code
        return _report(error, command_line)


def read(argv: Sequence[str]) -> CommandLine:
    """Choose the command, and parse its arguments; all errors are in the result's `diagnostics`."""
    from gearshift.launcher.config.command_line import HELP, RUN
    from gearshift.launcher.config.parsing import parse

    if argv and argv[0] == _HELP:
        argv = [*argv[1:], HELP.flag]
    if not argv or argv[0].startswith("-"):
        return parse(RUN, argv)
    # With the options of all other commands.
    from gearshift.launcher.config.commands import ALIASES, COMMANDS

    name, *words = argv
    command = COMMANDS.get(ALIASES.get(name, name))
    if command is not None:
        return parse(command, words)
    from gearshift.launcher.base.diagnostics import PROGRAM
    from gearshift.launcher.config.fixes import as_commands
    from gearshift.launcher.config.input_errors import unknown_command

    # It is printed alone: what else is wrong depends on what is meant, and its fix mends it.
    parsed = parse(RUN, words)
    error = unknown_command(name, words, list(COMMANDS), [*COMMANDS, *ALIASES, _HELP])
    if error.fix is not None:
        meant = read(shlex.split(error.fix.removeprefix(PROGRAM)))
        fixes = [wrong.fix for wrong in as_commands(meant, meant.diagnostics)]
        if fixes:
            error = replace(error, fix=None if None in fixes else fixes[-1])
    return replace(parsed, diagnostics=[error], is_misread=True)


def _run(command_line: CommandLine) -> int:
    """Run a parsed command line; the exit code. Raises SettingsError, also of parsing."""
    from gearshift.launcher.base.diagnostics import SettingsError
    from gearshift.launcher.config.command_line import HELP, VERSION

    flags = command_line.values
    diagnostics = command_line.diagnostics
    if HELP.flag in flags and not diagnostics:
        from gearshift.launcher.cli.help import render_help

        print(render_help(command_line.command), end="")
        return exit_codes.DONE
    if VERSION.flag in flags and not diagnostics:
        print(", ".join(map(" ".join, environment.versions().items())))
        return exit_codes.DONE
    if diagnostics and (command_line.is_misread or not command_line.command.adds_errors):
        raise SettingsError(diagnostics)
    with environment.importing(), signals.phase(ProcessPhase.IMPORTS):
        command = importlib.import_module(command_line.command.module)
    # A command with a log, such as `run`, writes them to it.
    with environment.logged(lambda text: None):
        code: int = command.main(command_line)
    return code


def _report(error: BaseException, command_line: CommandLine) -> int:
    """Print an error of a user, of data, storage or network; the exit code. Raises any other."""
    from gearshift.launcher.base import diagnostics
    from gearshift.launcher.base.diagnostics import CommandFailed, FetchError, SettingsError
    from gearshift.launcher.config.errors import about_data
    from gearshift.launcher.config.fixes import as_commands
    from gearshift.models.base import DataError
    from gearshift.training.checkpoint.manifest import CheckpointError
    from gearshift.training.logging.console_reporter import discarding
    from gearshift.training.storage import StorageError, disk_error

    if isinstance(error, OSError) and error.filename is None and error.errno in _OUTPUT_ERRORS:
        for stream in (sys.stdout, sys.stderr):  # else it fails again when the interpreter exits
            with discarding(stream):
                stream.flush()
        # The reader of our output, such as `head`, has ended: not an error.
        if error.errno == errno.EPIPE:
            return exit_codes.DONE
        diagnostics.say(f"error: the output cannot be written: {error.strerror}", sys.stderr)
        return exit_codes.FAILURE
    error = disk_error(error) or error
    if isinstance(error, DataError):
        error = about_data(error)
    code: int = getattr(error, "code", exit_codes.FAILURE)
    if isinstance(error, SettingsError):
        code = exit_codes.INVALID_INPUT
        entries = error.diagnostics
    elif isinstance(error, FetchError):
        entries = [error.diagnostic]
    elif isinstance(error, CommandFailed | StorageError | CheckpointError):
        entries = [diagnostics.Diagnostic(str(error))]
    else:
        raise error
    from gearshift.slurm.variables import read_rank_environment

    with suppress(InvalidEnvironment):
        ranks = read_rank_environment(environment.variables())
        if ranks is not None and ranks.local_rank > 0:
            return code  # local rank 0 prints the same error
    entries = as_commands(command_line, entries)
    if command_line.as_json:
        diagnostics.say(json.dumps({"diagnostics": diagnostics.as_json(entries)}, indent=2))
    else:
        diagnostics.say(diagnostics.render(entries), sys.stderr)
    return code


def _open_streams() -> None:
    """Let output go nowhere that the shell has closed (`>&-`): a file would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
            setattr(sys, name, open(number, "w" if number else "r"))  # noqa: SIM115


def program() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    _open_streams()
    handler = signals.Signals()
    handler.phase = ProcessPhase.IMPORTS
    handler.listen()
    if environment.variables().get(JOB_VARIABLE):
        from gearshift.launcher.run.job_generation import start_publisher

        handler.start_job(start_publisher(sys.argv))
    environment.is_own_process = True
    code = main()
    handler.finish()
    if code == exit_codes.INTERRUPTED:
        # A handled Ctrl-C that interrupted generated code (such as a data class during import)
        # stays pending in the interpreter, which would then exit by SIGINT, not with the code.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    sys.modules.pop("launcher", None)  # a custom task may have a module of this name
    program()
