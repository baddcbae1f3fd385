"""Job scripts: a shipped job file with further sbatch options and arguments."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from gearshift.slurm.sbatch import FOLDER

SHIPPED = frozenset(path.stem for path in FOLDER.glob("*.sbatch"))
"""The names of the job files NAME.sbatch in this folder."""
_OPTION = "#SBATCH --"
_JOB_SH = '"${GEARSHIFT_SLURM:-$SLURM_SUBMIT_DIR/slurm}/job.sh"'


def render(name: str, header: Mapping[str, str | None], arguments: Sequence[str]) -> str:
    """The text of the job file `name`, one of SHIPPED, for submission from any folder.

    `header` holds sbatch options without dashes, which override those of the shipped file; None
    means an option without a value. The script calls gearshift_job of job.sh with `arguments`.
    Reads the disk. Raises ValueError for a value with a line break.
    """
    path = FOLDER / f"{name}.sbatch"
    shipped = path.read_text("utf-8").rstrip()
    # The last line calls job.sh for the shipped file.
    shipped, _, _ = shipped.rpartition("\n")
    head, _, source = shipped.partition("\n\n")
    job_sh = shlex.quote(f"{FOLDER}/job.sh")
    source = source.replace(_JOB_SH, job_sh)

    lines = []
    options: dict[str, str | None] = {}
    for line in head.splitlines():
        if not line.startswith(_OPTION):
            lines.append(line)
            continue
        option = line.removeprefix(_OPTION)
        key, _, text = option.partition("=")
        options[key] = text or None
    if "no-requeue" in header:  # the shipped files requeue
        options.pop("requeue", None)
    for key, value in {**options, **header}.items():
        option = key
        if value is not None:
            # sbatch parses quotes as a shell does.
            option += f"={shlex.quote(value)}"
        if any(character in option for character in "\n\r\0"):
            raise ValueError(f"--{key} {value!r} contains a line break")
        lines.append(_OPTION + option)

    call_line = f'gearshift_job {shlex.join(arguments)} "$@"'
    return "\n".join([*lines, "", source, call_line, ""])
