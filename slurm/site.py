"""The site file: shell settings of a cluster, read in a subshell."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "GEARSHIFT_SITE"
"""Names the file. Default: site.sh next to job.sh, if it exists."""
NAME = "site.sh"
# Output of the file, such as that of `module load`, goes to stderr.
_CODE = """
set -a
. "$1" >&2
printf 'gearshift %d\\0' $?
set +a
command env -0
"""
_MARK = re.compile(r"gearshift ([0-9]+)")


class SiteError(Exception):
    """The file cannot be read, or it failed; with the message of the shell."""


def find(environ: Mapping[str, str], folder: Path) -> Path | None:
    """The site file; None: there is none. `folder` is that of job.sh."""
    if named := environ.get(VARIABLE):
        return Path(named).absolute()
    path = folder / NAME
    return path if path.exists() else None


def read(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment after bash has sourced the file in `environ`. Raises SiteError."""
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
    except OSError as error:
        raise SiteError(f"{error.strerror or error}") from error
    status, *pairs = done.stdout.split("\0")
    mark = _MARK.fullmatch(status)
    if mark is None or mark[1] != "0":
        reason = f"exit code {mark[1]} of its last command" if mark else "it exited the shell"
        raise SiteError("\n".join(filter(None, (reason, done.stderr.strip()))))
    found = (pair.partition("=") for pair in pairs if "=" in pair)
    return {name: value for name, _, value in found}
