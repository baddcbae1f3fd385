"""Reads a site's own file of shell settings, in a shell of its own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "GEARSHIFT_SITE"
"""Names the file; without it, it is the one beside job.sh, if there is one."""
NAME = "site.sh"
# What the file prints, as `module load` does, is kept apart from the variables.
_CODE = """
set -a
. "$1" >&2
printf 'gearshift %d\\0' $?
set +a
command env -0
"""
_MARK = re.compile(r"gearshift ([0-9]+)")


class SiteError(Exception):
    """The file cannot be read, or ended the shell; the message is the shell's own."""


def find(environ: Mapping[str, str], folder: Path) -> Path | None:
    """The file of this site; None: there is none. `folder` holds job.sh."""
    if named := environ.get(VARIABLE):
        return Path(named).absolute()
    path = folder / NAME
    return path if path.exists() else None


def read(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment after bash has read the file, beginning with `environ`. Raises SiteError."""
    try:
        path.open().close()
        done = subprocess.run(
            ["bash", "-c", _CODE, "bash", str(path)],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
        )
    except OSError as fault:
        raise SiteError(f"{fault.strerror or fault}") from fault
    told, *pairs = done.stdout.split("\0")
    mark = _MARK.fullmatch(told)
    if mark is None or mark[1] != "0":
        ended = f"its last command ended with {mark[1]}" if mark else "it ended the shell"
        raise SiteError("\n".join(filter(None, (ended, done.stderr.strip()))))
    found = (pair.partition("=") for pair in pairs if "=" in pair)
    return {name: value for name, _, value in found}
