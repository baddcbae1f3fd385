"""Prints a script that completes words in a shell."""

from __future__ import annotations

from launcher.base.diagnostics import SettingsError
from launcher.cli.completion import SCRIPTS
from launcher.cli.parser import Request


def main(request: Request) -> int:
    """Print the script of one shell; the exit code. Raises SettingsError."""
    if request.diagnostics:
        raise SettingsError(request.diagnostics)
    print(SCRIPTS[request.word or ""](), end="")
    return 0
