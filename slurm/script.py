"""Job scripts: a shipped job file with further sbatch options and arguments."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from gearshift.slurm.sbatch import FOLDER

SHIPPED = frozenset(path.stem for path in FOLDER.glob("*.sbatch"))
"""The names of the job files NAME.sbatch in this folder."""
_OPTION = "#SBATCH --"
_JOB_SH = '"${GEARSHIFT_SLURM:-$SLURM_SUBMIT_DIR/slurm}/job.sh"'
_OPPOSITES = {"no-requeue": "requeue", "requeue": "no-requeue"}
"""Options that cancel another one."""


def render(name: str, header: Mapping[str, str | None], call: str, arguments: Sequence[str]) -> str:
    """The text of the job file `name`, one of SHIPPED, for submission from any folder.

    `header` holds sbatch options without dashes, which override those of the shipped file; None
    means an option without a value. The script calls the function `call` of job.sh with
    `arguments`. Reads the disk. Raises ValueError for a value with a line break.
    """
    path = FOLDER / f"{name}.sbatch"
    shipped, _, _ = path.read_text("utf-8").rstrip().rpartition("\n")
    head, _, source = shipped.partition("\n\n")
    source = source.replace(_JOB_SH, shlex.quote(f"{FOLDER}/job.sh"))

    lines = []
    options: dict[str, str | None] = {}
    for line in head.splitlines():
        if line.startswith(_OPTION):
            key, _, text = line.removeprefix(_OPTION).partition("=")
            options[key] = text or None
        else:
            lines.append(line)
    # An option that cancels a shipped one takes its place.
    for key, value in header.items():
        options.pop(_OPPOSITES.get(key, ""), None)
        options[key] = value
    for key, value in options.items():
        if {"\n", "\r", "\0"} & {*key, *(value or "")}:
            raise ValueError(f"--{key} {value!r} contains a line break")
        # sbatch parses quotes as a shell does.
        lines.append(f"{_OPTION}{key}" if value is None else f"{_OPTION}{key}={shlex.quote(value)}")
    words = [call, *map(shlex.quote, arguments), '"$@"']
    return "\n".join([*lines, "", source, " ".join(words), ""])
