"""`python -m launcher` and the script `gearshift`: run one command line."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from launcher.base import ending, environment, exit_codes, library_warnings
from launcher.base.signals import Stopped
from launcher.run import startup
from slurm.environment import InvalidEnvironment, read_rank_environment

if TYPE_CHECKING:
    from launcher.base.diagnostics import SettingsError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code. Prints errors to stderr."""
    # Imported here, after `program` has installed the signal handlers: imports take time.
    with ending.imports():
        from launcher.cli import parser
        from launcher.config.options import HELP, JSON, VERSION

    command_line = parser.read(sys.argv[1:] if argv is None else argv)
    try:
        if HELP.flag in command_line.flags and not command_line.diagnostics:
            print(parser.render_help(command_line.command), end="")
            return exit_codes.DONE
        if VERSION.flag in command_line.flags and not command_line.diagnostics:
            print(_versions())
            return exit_codes.DONE
        with environment.importing(), ending.imports():
            command = importlib.import_module(command_line.command.module)
        # A command with a log, such as `run`, writes them to it.
        with library_warnings.logged(lambda text: None):
            code: int = command.main(command_line)
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt, Stopped) as error:
        handler = ending.ending_signals() or ending.EndingSignals()
        if handler.caused(error):
            handler.clean_up()
            print(handler.text, file=sys.stderr)
            return handler.code
        return _report(error, as_json=JSON.flag in command_line.flags)


def _report(error: BaseException, as_json: bool) -> int:
    """Print an error of a user or of storage; the exit code. Raises any other `error`."""
    from launcher.base.diagnostics import SettingsError
    from training.storage import StorageError

    if isinstance(error, SettingsError):
        _print_error(error, as_json)
        return exit_codes.INVALID_INPUT
    if isinstance(error, StorageError):
        _print_error(SettingsError.of(str(error)), as_json)
        return exit_codes.FAILURE
    if isinstance(error, BrokenPipeError):
        # The reader of our output, such as `head`, has ended: not an error.
        from training.logging.outputs import discard

        discard(sys.stdout)
        return exit_codes.DONE
    raise error


def _print_error(error: SettingsError, as_json: bool) -> None:
    from launcher.base import diagnostics

    if _local_rank() > 0:
        return  # local rank 0 prints the same error
    if as_json:
        entries = diagnostics.as_json(error.diagnostics)
        print(json.dumps({"diagnostics": entries}, indent=2))
    else:
        print(diagnostics.render(error.diagnostics), file=sys.stderr)


def _versions() -> str:
    """This program, Python and the libraries that train, in one line."""
    versions = environment.versions().items()
    return ", ".join(f"{name} {number}" for name, number in versions)


def _local_rank() -> int:
    try:
        ranks = read_rank_environment(environment.variables())
    except InvalidEnvironment:
        return 0
    return 0 if ranks is None else ranks.local_rank


def program() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    handler = ending.EndingSignals()
    handler.listen()
    startup.handle_startup_signals(sys.argv, environment.variables())
    environment.Process.is_own = True
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
    program()
