"""Checks of Slurm and of Weights & Biases, which is never asked over the network."""

from __future__ import annotations

import netrc
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from launcher.doctor.packages import Packages, check_package
from launcher.doctor.result import Check, ok, warning
from slurm import queue

_ANSWER_S = 10.0
_OFFLINE = ("offline", "dryrun", "disabled")
_HOST = "https://api.wandb.ai"
_KEY, _TOKEN = "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"
_KEY_LENGTH = 40


def check_slurm() -> Check:
    """Whether Slurm's commands are on PATH, and its controller answers."""
    commands = [name for name in queue.COMMANDS if shutil.which(name)]
    if not commands:
        return ok("slurm", "not on this machine")
    missing = [name for name in queue.COMMANDS if name not in commands]
    if missing:
        fix = "add the folder of Slurm's commands to PATH, or install its client package"
        return warning("slurm", f"{', '.join(missing)} not on PATH", fix)
    try:
        partitions = queue.partitions(_ANSWER_S)
    except queue.QueueError as error:
        fix = "scontrol ping; is slurmctld running, and is this a node of its cluster?"
        return warning("slurm", f"the controller does not answer: {error}", fix)
    return ok("slurm", f"partitions {', '.join(partitions) or 'none'}")


def check_wandb(packages: Packages, environ: Mapping[str, str], home: Path) -> Check:
    """Whether W&B is installed, and logged in or offline. Shows no key, uses no network."""
    installed = check_package("wandb", packages)
    if installed.status != "ok":
        return installed
    mode = environ.get("WANDB_MODE", "")
    if mode in _OFFLINE:
        return ok("wandb", f"{installed.found}, {mode} (WANDB_MODE)")
    login = "wandb login; or without a network: export WANDB_MODE=offline"
    key = environ.get(_KEY)
    if key is not None:
        if len(key.strip()) < _KEY_LENGTH:
            return warning("wandb", f"{installed.found}, {_KEY} is no key: it is too short", login)
        return ok("wandb", f"{installed.found}, logged in ({_KEY})")
    if environ.get(_TOKEN):
        return ok("wandb", f"{installed.found}, logged in ({_TOKEN})")
    file = Path(environ.get("NETRC") or home / ".netrc")
    host = urlsplit(environ.get("WANDB_BASE_URL") or _HOST).hostname or ""
    try:
        is_known = host in netrc.netrc(file).hosts
    except FileNotFoundError:
        is_known = False
    except (OSError, netrc.NetrcParseError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"line {error.lineno}"
        return warning("wandb", f"{installed.found}, cannot read {file}: {reason}", login)
    if is_known:
        return ok("wandb", f"{installed.found}, logged in to {host} ({file})")
    return warning("wandb", f"{installed.found}, not logged in: --track wandb stays offline", login)
