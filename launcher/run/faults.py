"""The commonest faults of runs: the symptom, the likely cause, and the next command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gearshift.launcher.base.diagnostics import PROGRAM, from_here, plain
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.run_folder import checkpoint_search, run_folder


@dataclass(frozen=True)
class Fault:
    """A fault of a run; braces hold values of the run that has it."""

    title: str
    seen: str
    """The message, or what a check of the metrics found."""
    cause: str
    fix: str
    """The next command; its values are those of `commands`."""
    hint: str | None = None
    """What to do before it."""
    warns: bool = False
    """Its event is a warning, not only advice."""
    message: str | None = None
    """A regular expression for the texts of libraries and of the system about it."""


FAULTS: Mapping[str, Fault] = {
    "nonfinite_first": Fault(
        "NaN from the first step",
        "loss {loss} and gradient norm {grad_norm} at step 1",
        "an input or a label is not finite, the loss divides by 0, or fp16 overflows",
        "{again} --precision fp32 --debug",
    ),
    "nonfinite_later": Fault(
        "NaN after some steps",
        "loss {loss} and gradient norm {grad_norm} at step {step}",
        "the learning rate is too high, a few samples are not finite, or the weights that the run "
        "started from are not",
        "{again} --lr {lower_lr}",
    ),
    "nonfinite_evaluation": Fault(
        "NaN in an evaluation",
        "{metrics} in the evaluation of {split} at step {step}",
        "a validation sample is not finite, a metric has no samples to count, or the model "
        "overflows; it is never the best",
        "{nonfinite}",
        warns=True,
    ),
    "not_falling": Fault(
        "the loss does not fall",
        "loss {first} in the first third of {steps} steps, {last} in the last third",
        "the learning rate is too low, or the labels do not belong to their inputs",
        "{again} --lr {higher_lr}",
    ),
    "lr_too_high": Fault(
        "the learning rate is too high",
        "loss {least} or more in the last {lines} logged steps, {first} in the first step",
        "the learning rate is too high",
        "{again} --lr {lower_lr}",
    ),
    "overfitting": Fault(
        "overfitting",
        "val_loss rises since step {step}, from {best} to {now}, while the training loss falls",
        "the model memorizes its few training data",
        "{again} --set stop.patience=3",
    ),
    "below_baseline": Fault(
        "no better than a simple method",
        "{metric} {best} at best, and {baseline} without a model: {name}",
        "too few steps, a learning rate that is too low, or too few data for a model of this size",
        "{again} {longer}",
    ),
    "starved": Fault(
        "the data loader is too slow",
        "{share} % of the time of a step is spent waiting for data",
        "too few loader workers, or slow storage",
        "{again} --num-workers {workers}",
    ),
    "shared_memory": Fault(
        "/dev/shm is full",
        "DataLoader worker (pid {pid}) is killed by signal: Bus error",
        "batches of loader workers do not fit in /dev/shm; a container has 64 MB unless started "
        "with --shm-size or --ipc=host",
        "{retry} --num-workers 0",
        message=r"killed by signal: Bus error|\(shm\)|</torch_",
    ),
    "dead_worker": Fault(
        "a loader worker died",
        "data-loader worker {pid} died by signal {signal}; {free} GB of memory is free now",
        "the kernel killed it as memory ran out, or a library in it crashed; what was trained is "
        "saved",
        "{retry} --num-workers 0",
    ),
    "dead_rank": Fault(
        "a rank died",
        "rank {rank} on {host} died: {status}",
        "the kernel or the scheduler killed it, or its node failed",
        "{retry} --set engine.max_restarts=3",
    ),
    "timeout": Fault(
        "a collective timed out (NCCL, gloo)",
        "rank {rank} on {host} does not answer the other ranks: its process {process} is {state}",
        "a rank hangs in its data, a disk or the network, or needs longer than engine.timeout_s",
        "{retry} --set engine.timeout_s={timeout_s}",
        message=r"collective operation timeout|DistBackendError.*[Tt]ime"
        r"|for training data; see engine",
    ),
    "permission": Fault(
        "no permission",
        "cannot write {path}: Permission denied",
        "the folder belongs to another user, or is mounted read-only",
        "{again} --out runs/other",
        message=r"Permission denied|Read-only file system|Operation not permitted",
    ),
    "open_files": Fault(
        "too many open files",
        "Too many open files",
        "the limit of the shell is too low for the ranks and their loader workers",
        "{retry}",
        "raise the limit before it:  ulimit -n 65536",
        message=r"Too many open files|EMFILE",
    ),
    "disk_full": Fault(
        "the disk is full",
        "cannot write {path}: No space left on device",
        "checkpoints, caches or other files fill it",
        "{retry}",
        "free some space before it",
        message=r"No space left on device",
    ),
    "quota": Fault(
        "the quota is used up",
        "cannot write {path}: Disk quota exceeded",
        "your files exceed your share of the disk, which may have room for other users",
        "{retry}",
        "delete some of your files before it; quota -s shows the limit",
        message=r"Disk quota exceeded",
    ),
}


def advice(
    name: str, values: Mapping[str, object], commands: Mapping[str, str]
) -> tuple[str, dict[str, object]]:
    """The event about a symptom, by its kind and facts, with the likely cause and the fix.

    `values` fill what was seen; or they have the text `seen`, and `is_end` where it ends the run.
    """
    fault = FAULTS[name]
    symptom = str(values.get("seen") or fault.seen.format(**values))
    fix = fault.fix.format(**{**values, **commands})
    facts: dict[str, object] = {
        "fault": name,
        "seen": symptom,
        "cause": fault.cause,
        "fix": fix,
    }
    if fault.hint is not None:
        facts["hint"] = fault.hint
    if fault.warns:
        text = f"{symptom}: {fault.cause}; fix:  {fix}"
        return "warning", {"text": text, "names": values["names"], **facts}
    if values.get("is_end"):
        facts["is_end"] = True
    return "advice", facts


def recognized(message: str) -> str | None:
    """The name of the fault that `message` of a library or the system is about."""
    for name, fault in FAULTS.items():
        if fault.message and re.search(fault.message, message):
            return name
    return None


def commands(resolved: Resolved, folder: Path) -> dict[str, str]:
    """The values of the fixes for the run in `folder`. Reads the disk."""
    settings = resolved.settings
    again = f"{PROGRAM} --config {shlex.quote(from_here(folder / run_folder.SETTINGS))}"
    resume = f"{PROGRAM} resume {shlex.quote(from_here(folder))}"
    lower = plain(float(f"{settings.optim.lr / 10:.3g}"))
    higher = plain(float(f"{settings.optim.lr * 10:.3g}"))
    longer = ""
    if settings.train.max_steps is not None:
        longer = f"--max-steps {2 * settings.train.max_steps}"
    elif settings.train.epochs is not None:
        longer = f"--set train.epochs={2 * settings.train.epochs:g}"
    nonfinite = f"{again} --lr {lower}"
    if settings.train.on_nonfinite == "stop":  # take more of them
        nonfinite = f'{resume if settings.save.last else again} --set "train.on_nonfinite=skip 9"'
    return {
        "again": again,
        "retry": resume if checkpoint_search.newest_step(folder) is not None else again,
        "nonfinite": nonfinite,
        "lower_lr": lower,
        "higher_lr": higher,
        "longer": longer,
        "workers": str(max(2 * settings.loader.workers, 2)),
        "timeout_s": plain(4 * settings.engine.timeout_s),
    }
