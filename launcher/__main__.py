"""`python -m launcher`, and the script `gearshift`: one command line from its words to its exit."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from launcher.base import exit_codes
from launcher.run import early_signals
from slurm.environment import EnvironmentFault, read_place

if TYPE_CHECKING:
    from launcher.base.diagnostics import SettingsError


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; the exit code. Wrong words are told on stderr."""
    # Slow to import, and a signal may come meanwhile; see `program`.
    from launcher.base.diagnostics import SettingsError
    from launcher.cli import help, parser
    from launcher.cli.options import HELP, JSON

    request = parser.read(sys.argv[1:] if argv is None else argv)
    try:
        if HELP.flag in request.flags and not request.diagnostics:
            print(help.render(request.command), end="")
            return exit_codes.DONE
        code: int = importlib.import_module(request.command.module).main(request)
        sys.stdout.flush()
        return code
    except SettingsError as error:
        _tell(error, JSON.flag in request.flags)
        return exit_codes.INVALID_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        # Who read our output, `head` say, has left; nothing can be told and nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.DONE


def _tell(error: SettingsError, for_machines: bool) -> None:
    from launcher.base.diagnostics import as_json, render

    if _is_echo():
        return
    if for_machines:
        print(json.dumps({"diagnostics": as_json(error.diagnostics)}, indent=2))
    else:
        print(render(error.diagnostics), file=sys.stderr)


def _is_echo() -> bool:
    """Whether another rank on this machine reads the same words: one voice a machine is enough."""
    try:
        place = read_place(os.environ)
    except EnvironmentFault:
        return False
    return place is not None and place.local_rank > 0


def program() -> NoReturn:
    """Be the process of a command line, to its exit code."""
    early_signals.listen(sys.argv, os.environ)
    code = main()
    early_signals.end()
    if code == exit_codes.INTERRUPTED:
        # A Ctrl-C that was answered stays with the interpreter where it broke into code made at
        # run time, as imports do for data classes: it would end by SIGINT, not with the code.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    program()
