"""The micro-batch to restart with after out of memory, from plans of the run in a child process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.base import environment
from launcher.config.machine import detect_machine
from launcher.config.provenance import Batching, Resolved
from launcher.run import job_spec
from launcher.run.job_spec import Job
from training.logging.quantities import size

if TYPE_CHECKING:
    from launcher.plan.plan import Plan
    from launcher.plan.target import Described

REASON = "reduced after out of memory"
"""Origin of the new batch numbers."""
PLANNING_S = 60.0
_FILE = "choice.json"
_FIRST_TO_KILL = "1000"
"""For the kernel, if memory runs out while the child process plans."""


@dataclass(frozen=True)
class Peak:
    """The predicted peak of a micro-batch, in the memory that is short."""

    bytes: int
    limit: int | None
    """None: unknown."""
    margin: float
    """The share of the limit that shall stay free."""

    @property
    def is_over(self) -> bool:
        """Whether the prediction explains that memory ran out."""
        return self.limit is not None and self.bytes > self.limit


@dataclass(frozen=True)
class Choice:
    """A smaller micro-batch, and the predicted bytes that decided."""

    micro_batch: int
    failed_micro_batch: int
    failed_bytes: int
    smaller_bytes: int
    limit_bytes: int | None

    def __str__(self) -> str:
        limit = "" if self.limit_bytes is None else f" of {size(self.limit_bytes)}"
        return (
            f"predicted peak {size(self.smaller_bytes)}{limit}, "
            f"{size(self.failed_bytes)} with micro-batches of {self.failed_micro_batch}"
        )


def planned(failed: Resolved) -> Choice | None:
    """The choice for a run that ran out of memory with the batch numbers of `failed`.

    It is made in a process of its own, for which memory may run out again; None: it failed, or took
    more than PLANNING_S. Touches the disk (a temporary folder).
    """
    with tempfile.TemporaryDirectory(prefix="gearshift-") as name:
        folder = Path(name)
        job_spec.save(Job(failed, None, console=False), folder)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "launcher.run.smaller_batch", name],
                env={**environment.variables(), "PYTHONPATH": environment.python_path()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=PLANNING_S,
            )
        except (subprocess.TimeoutExpired, OSError):
            return None
        file = folder / _FILE
        if done.returncode or not file.exists():
            return None
        return Choice(**json.loads(file.read_text(encoding="utf-8")))


def choose(failed: Batching, peak: Callable[[Batching], Peak]) -> Choice | None:
    """The largest micro-batch that should fit, at the same global batch; None: nothing helps.

    If the peak with `failed` is above the limit, the prediction explains what happened: the choice
    is the largest below the limit and its margin, else 1. If not, more memory was used than
    predicted: the choice is at most half, and its peak is lower by the margin.
    """
    before = peak(failed)
    sizes = list(_smaller(failed))
    if before.is_over:
        assert before.limit is not None
        most = (1 - before.margin) * before.limit
    else:
        sizes = [each for each in sizes if 2 * each.micro_batch <= failed.micro_batch]
        most = (1 - before.margin) * before.bytes
    peaks: dict[int, Peak] = {}

    def fits(numbers: Batching) -> bool:
        found = peaks[numbers.micro_batch] = peak(numbers)
        return found.bytes <= most

    place = bisect_left(sizes, True, key=fits)
    if not sizes or (place == len(sizes) and not before.is_over):
        return None
    chosen = sizes[min(place, len(sizes) - 1)].micro_batch
    return Choice(chosen, failed.micro_batch, before.bytes, peaks[chosen].bytes, before.limit)


def _smaller(numbers: Batching) -> Iterator[Batching]:
    """The same global batch with each smaller micro-batch, the largest first."""
    share = numbers.micro_batch * numbers.accumulation
    for micro in range(numbers.micro_batch - 1, 0, -1):
        if share % micro == 0:
            yield replace(numbers, micro_batch=micro, accumulation=share // micro)


def choose_by_plan(failed: Resolved, described: Described) -> Choice | None:
    """As `choose`, with the peaks of plans on the described machine. Reads the data of the run.

    Raises SettingsError, and what a step of the task raises.
    """
    from launcher.plan.plan import MARGIN, open_planner

    short: list[bool] = []
    with open_planner(failed, described) as planner:

        def peak(numbers: Batching) -> Peak:
            plan = planner.plan(failed.with_batching(numbers, REASON))
            target = plan.target
            short[:] = short or [_is_host_short(plan)]  # decided by the micro-batch that failed
            if short[0]:
                return Peak(plan.host_bytes, target.ram_bytes, MARGIN)
            return Peak(plan.device_bytes, target.device_bytes, MARGIN)

        return choose(failed.batching, peak)


def _main(folder: Path) -> None:
    """Plan the job in `folder`, and write the choice there. Touches the disk."""
    from launcher.plan.target import Described, with_own_memory
    from training.resources import nvml

    with suppress(OSError):  # only Linux has it
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_KILL)
    described = with_own_memory(Described(detect_machine()), nvml.memory_bytes)
    if (choice := choose_by_plan(job_spec.load(folder).resolved, described)) is not None:
        (folder / _FILE).write_text(json.dumps(asdict(choice)), encoding="utf-8")


def _is_host_short(plan: Plan) -> bool:
    """Whether the memory of the host is the one that is short, not that of a device."""
    device, ram = plan.target.device_bytes, plan.target.ram_bytes
    if plan.target.device == "cpu":
        return True
    is_device_over = device is not None and plan.device_bytes > device
    return ram is not None and plan.host_bytes > ram and not is_device_over


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
