"""Checks of disk, shared memory, limits of processes, memory, swap and clock."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

import psutil

from launcher.base import disk
from launcher.base.diagnostics import SettingsError
from launcher.config.machine import Machine
from launcher.doctor.result import Check, failure, ok, warning
from training.logging.quantities import size
from training.resources import cgroup

MIB, GIB = 2**20, 2**30
_FEW_BYTES, _NO_BYTES = 5 * GIB, 200 * MIB
"""Free disk space: about ten checkpoints of 124M parameters with optimizer state, and of 4M."""
_SHARED = 512 * MIB
"""Containers have 64 MiB by default, which one large batch fills."""
_OPEN_FILES, _FEWEST_FILES = 1024, 256
"""Each tensor that a loader worker sends keeps a file open; ranks keep some per neighbor."""
_LITTLE_MEMORY, _NO_MEMORY = 2 * GIB, 600 * MIB
"""Importing torch and DeepSpeed alone takes about 600 MiB."""
_SWAPPED = 50.0
_CLOCK_S = 300.0
"""File servers may be ahead by that much."""


def check_disk_space(folder: Path) -> Check:
    """Whether `folder` can be written to, and how much room its disk has."""
    name = "disk space"
    try:
        disk.check_writable(folder, "working directory", noun="folder")
    except SettingsError as error:
        return failure(name, error.diagnostics[0].message, "change to a folder of yours")
    usage, files = shutil.disk_usage(folder), os.statvfs(folder)
    text = f"{size(usage.free)} of {size(usage.total)} free for {folder}"
    fix = "delete what you do not need, or change to a folder on another disk"
    if files.f_files and not files.f_favail:
        return failure(name, f"{text}, but no file can be created: no inode is free", fix)
    if usage.free < _NO_BYTES:
        return failure(name, text, fix)
    return warning(name, text, fix) if usage.free < _FEW_BYTES else ok(name, text)


def check_shared_memory(folder: Path) -> Check:
    """Loader workers send batches through /dev/shm, which containers make small."""
    name = "/dev/shm"
    if sys.platform != "linux":
        return ok(name, "not used by this system")
    fix = "docker run --shm-size=8g  or  mount -o remount,size=8G /dev/shm  or  --num-workers 0"
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return failure(name, f"{folder} is no folder that can be written to", fix)
    usage = shutil.disk_usage(folder)
    text = f"{size(usage.free)} of {size(usage.total)} free"
    return warning(name, text, fix) if usage.free < _SHARED else ok(name, text)


def check_open_files() -> Check:
    """The number of files that a process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _OPEN_FILES:
        return ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"up to {soft}")
    fix = "ulimit -n 65536"
    if hard != resource.RLIM_INFINITY and hard < 65536:
        fix = f"ulimit -n {hard}" if hard >= _OPEN_FILES else "ask for a higher limit (nofile)"
    report = failure if soft < _FEWEST_FILES else warning
    return report("open files", f"up to {soft}; loader workers and ranks need more", fix)


def check_locked_memory(infiniband: Path) -> Check:
    """Network cards in `infiniband` lock the memory that they send from."""
    name = "locked memory"
    if not infiniband.is_dir() or not any(infiniband.iterdir()):
        return ok(name, "not needed: no InfiniBand")
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY:
        return ok(name, "no limit")
    fix = "ulimit -l unlimited;  in jobs LimitMEMLOCK of slurmd;  docker run --ulimit memlock=-1"
    return warning(name, f"up to {size(limit)}: InfiniBand between nodes fails or is slow", fix)


def check_memory(
    machine: Machine, mount: Path = cgroup.MOUNT, membership: Path = cgroup.MEMBERSHIP
) -> Check:
    """The free main memory, within the limit of a control group."""
    name, free, total = "memory", psutil.virtual_memory().available, psutil.virtual_memory().total
    share = cgroup.memory(mount, membership)
    fix = "end other programs; train smaller:  --mode resource-efficient"
    text = f"{size(free)} of {size(total)} free"
    if share is not None and share.limit < total:
        free = min(free, max(share.limit - share.used, 0))
        allowed = f"the {size(share.limit)} that the control group allows"
        text = f"{size(free)} free of {allowed} (machine: {size(total)})"
        fix = "docker run --memory=SIZE  or  sbatch --mem=SIZE  or  --mode resource-efficient"
    if free < _LITTLE_MEMORY:
        return (failure if free < _NO_MEMORY else warning)(name, text, fix)
    return ok(name, f"{text}; {machine.sentence}")


def check_swap(mount: Path = cgroup.MOUNT, membership: Path = cgroup.MEMBERSHIP) -> Check:
    """Swap in use slows training down."""
    memory, share = psutil.swap_memory(), cgroup.swap(mount, membership)
    total, used = memory.total, memory.used
    if share is not None:
        total, used = min(total, share.limit) if total else share.limit, share.used
    if not total:
        return ok("swap", "none")
    text = f"{size(used)} of {size(total)} in use"
    if 100 * used / total > _SWAPPED:
        return warning("swap", text, "end other programs: a run that swaps is many times slower")
    return ok("swap", text)


def check_clock(now: float, files: Iterable[Path]) -> Check:
    """Whether the time `now`, in seconds since 1970, is after the newest of `files`."""
    newest = max((file.stat().st_mtime for file in files), default=0.0)
    text = _date(now)
    if now < newest - _CLOCK_S:
        problem = f"{text} is before the newest file of this installation, {_date(newest)}"
        fix = "set the clock: timedatectl set-ntp true; certificates and names of runs need it"
        return failure("clock", problem, fix)
    return ok("clock", text)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
