"""sbatch: its options (versions 20 to 24), its site file, and calls in a clean environment."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
"""The folder of job.sh, of the job files and of the site file."""
_SWITCHES = """
contiguous exclusive get-user-env hold ignore-pbs no-kill no-requeue overcommit oversubscribe
reboot requeue spread-job use-min-nodes
"""
_WITH_VALUE = """
account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment
constraint container core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline
delay-boot dependency distribution error exclude export export-file extra-node-info gid
gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint input
job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu
mem-per-gpu mincpus network nice no-bell nodefile nodelist nodes ntasks ntasks-per-core
ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output parsable partition power
prefer priority profile propagate qos quiet reservation signal sockets-per-node switches
test-only thread-spec threads-per-core time time-min tmp tres-per-task uid verbose wait
wait-all-nodes wckey wrap
"""
SWITCHES = frozenset(_SWITCHES.split())
"""Options that need no value."""
OPTIONS = SWITCHES | frozenset(_WITH_VALUE.split())
"""All long options, without their dashes."""
_SHORT = """
A=account a=array C=constraint c=cpus-per-task D=chdir d=dependency e=error F=nodefile
G=gpus H=hold i=input J=job-name k=no-kill L=licenses M=clusters m=distribution N=nodes
n=ntasks O=overcommit o=output p=partition q=qos S=core-spec s=oversubscribe t=time W=wait
w=nodelist x=exclude
"""
SHORT = {pair[0]: pair[2:] for pair in _SHORT.split()}
"""Short options."""
_OF_CLUSTER = ("SLURM_CONF", "SLURM_JWT")
"""What Slurm's programs need to reach the cluster."""
_JOB_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "GEARSHIFT_JOB",
    "GEARSHIFT_GENERATION",
    "GEARSHIFT_GENERATION_BASE",
    "GEARSHIFT_RENDEZVOUS",
)
"""Set by a job for its ranks; a job that is submitted from it must not inherit them."""
_PREFIXES = ("SLURM_", "SBATCH_", "SRUN_", "TORCHELASTIC_")
_RENAMED = {"TIMELIMIT": "time", "MEM_PER_NODE": "mem"}
"""Variables whose option has another name; man sbatch, INPUT ENVIRONMENT VARIABLES."""
SITE_VARIABLE = "GEARSHIFT_SITE"
"""Names the file. Default: site.sh next to job.sh, if it exists."""
# Output of the file, such as that of `module load`, goes to stderr.
_READ_SITE = """
set -a
. "$1" >&2 && command env -0
"""


class SlurmError(Exception):
    """A command, or the site file, is missing or failed; with its message."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without the variables of a job and without defaults for sbatch.

    Variables of a job leak into a job that is submitted from it, even with --export=NONE.
    """
    clean = {}
    for name, value in environ.items():
        is_of_job = name.startswith(_PREFIXES) or name in _JOB_VARIABLES
        if name in _OF_CLUSTER or not is_of_job:
            clean[name] = value
    return clean


def header(environ: Mapping[str, str]) -> dict[str, str | None]:
    """The options that variables such as SBATCH_ACCOUNT set, without dashes.

    The value None means an option without a value. Unknown variables are ignored.
    """
    options: dict[str, str | None] = {}
    for variable, value in sorted(environ.items()):
        if not variable.startswith("SBATCH_"):
            continue
        name = variable.removeprefix("SBATCH_")
        option = _RENAMED.get(name, name.lower().replace("_", "-"))
        if option in SWITCHES and value.lower() in ("", "1", "yes", "true"):
            options[option] = None
        elif option in OPTIONS and value:
            options[option] = value
    return options


def option_of(argument: str) -> str | None:
    """The long option, without dashes, of an argument such as `-pdebug` or `--time=1`; or None."""
    if argument.startswith("--"):
        name = argument[2:].partition("=")[0]
        return name if name in OPTIONS else None
    if argument.startswith("-"):
        return SHORT.get(argument[1:2])
    return None


def command(script: Path, options: Sequence[str]) -> list[str]:
    """The command that submits the script in a file."""
    return ["sbatch", "--parsable", *options, str(script)]


def test(script: str, options: Sequence[str], environ: Mapping[str, str]) -> None:
    """Test whether a job can ever start. Raises SlurmError.

    Without this test, sbatch accepts jobs that can never start.
    """
    run(["sbatch", "--test-only", *options], environment(environ), script)


def submit(script: Path, options: Sequence[str], environ: Mapping[str, str]) -> str:
    """Submit a job; its id. Raises SlurmError."""
    printed = run(command(script, options), environment(environ)).strip()
    last = re.search(r"([0-9]+)(;\S*)?$", printed)  # ID;CLUSTER with several clusters
    if last is None:
        raise SlurmError(f"sbatch printed no job id but {printed!r}")
    return last[1]


def cancel(job: str) -> None:
    """Cancel a job; does nothing if the job or Slurm is gone."""
    with suppress(SlurmError):
        run(["scancel", job], timeout_s=60)


def run(
    command: Sequence[str],
    environ: Mapping[str, str] | None = None,
    text: str = "",
    timeout_s: float | None = None,
) -> str:
    """The output of a command, with `text` on its standard input.

    Raises SlurmError if it is missing, fails, or runs longer than `timeout_s`.
    """
    try:
        result = subprocess.run(
            command,
            env=environ,
            input=text,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"cannot run {command[0]}: {error}") from error
    if result.returncode:
        message = re.sub(r"(?m)^sbatch: (?:error: )?", "", (result.stderr or result.stdout).strip())
        raise SlurmError(message or f"{command[0]} failed with exit code {result.returncode}")
    return result.stdout


def find_site_file(environ: Mapping[str, str]) -> Path | None:
    """The site file; None: there is none."""
    name = environ.get(SITE_VARIABLE)
    if name:
        return Path(name).absolute()
    path = FOLDER / "site.sh"
    return path if path.exists() else None


def read_site_file(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment after bash has sourced the file in `environ`. Raises SlurmError."""
    output = run(["bash", "-c", _READ_SITE, "bash", str(path)], environ)
    if not output:
        raise SlurmError("it exited the shell")
    pairs = (pair.partition("=") for pair in output.rstrip("\0").split("\0"))
    return {name: value for name, _, value in pairs}
