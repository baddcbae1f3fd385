"""Restart of ranks after a failure or out of memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import replace

from launcher.config import batching
from launcher.config.provenance import Resolved
from launcher.run import run_end
from launcher.run.run_end import RunEnd
from launcher.run_folder import run_folder
from launcher.run_folder.run_plan import ResumeRequest, RunPlan
from training.logging.events import append_event
from training.resources import cgroup
from training.resources.oom import MAX_HALVINGS
from training.storage import Storage

_RESTARTED = ("failed", "killed", "peer lost")
"""Ends that a restart may avoid. Invalid input and a loss that is not finite would come again."""
Show = Callable[[RunEnd], None]
Attempt = Callable[[RunPlan], RunEnd]
"""Runs the ranks once."""


def repeat(plan: RunPlan, attempt: Attempt, show: Show) -> RunEnd:
    """Run the ranks to their end, with up to engine.max_restarts restarts after failures.

    After out of memory they restart with half the micro-batch and the same global batch, three
    times at most: a rank cannot retry a step while its peers wait in a collective, and not at all
    if the kernel killed it. Each restart resumes from the newest checkpoint and is printed and
    logged. `show` gets each failure; the last end is returned. Touches the disk.
    """
    folder = plan.folder
    assert folder is not None, "these ranks have a run folder"
    newest, begun = _begun(plan)
    max_restarts = plan.resolved.settings.engine.max_restarts
    again, restarts, reductions = plan, 0, 0
    while True:
        kills = cgroup.oom_kills() or 0
        end = attempt(again)
        kills = (cgroup.oom_kills() or 0) - kills
        end = run_end.out_of_memory(end, kills, again.resolved.batching)
        if end.kind != "ended":
            show(end)
        if end.kind == "ended" or end.signals or not folder.is_dir():
            return end
        resume, step = _resume_point(plan, newest, begun)
        is_reducible = end.kind == "out of memory" and reductions < MAX_HALVINGS
        smaller = reduced(again.resolved, end.micro_batch) if is_reducible else None
        if smaller is not None:
            reductions, numbers = reductions + 1, smaller.batching
            again = replace(again, resolved=smaller)
            line = f"restart with micro-batches of {numbers.micro_batch}"
            facts = {"rank": end.rank, "text": end.text, "from_step": step}
            facts |= {"micro_batch": numbers.micro_batch, "accumulation": numbers.accumulation}
            append_event(Storage(folder), "out_of_memory", step or 0, facts)
        elif end.kind in _RESTARTED and restarts < max_restarts:
            restarts += 1
            line = f"restart {restarts} of {max_restarts}"
        else:
            return end
        again = replace(again, resume=resume)
        line += " from the beginning" if step is None else f" from step {step}"
        run_folder.append_log(folder, f"{end.text}\n{end.trace}\n{line}")
        if plan.console:
            print(line, file=sys.stderr, flush=True)
        del end  # its cause holds the model, if it was trained here
        gc.collect()


def reduced(resolved: Resolved, micro_batch: int | None = None) -> Resolved | None:
    """The settings with half the micro-batch and the same global batch; None: it cannot be smaller.

    `micro_batch` is the one that ran out of memory; None: that of the settings, which a run may
    have reduced itself. settings.yaml and origins.json of the restarted run show the new numbers
    and their origin.
    """
    numbers = resolved.batching
    used = micro_batch or numbers.micro_batch
    accumulation = numbers.micro_batch * numbers.accumulation // used
    failed = replace(numbers, micro_batch=used, accumulation=accumulation)
    smaller = next(batching.halvings(failed), None)
    reason = "reduced after out of memory"
    return None if smaller is None else resolved.with_batching(smaller, reason)


def _begun(plan: RunPlan) -> tuple[int | None, int | None]:
    """Before the first attempt: the newest step in the run folder, and the step to resume from."""
    if plan.resume is None or plan.folder is None:  # a new run has no checkpoints to look for
        return None, None
    from launcher.run_folder.checkpoint_search import newest_step

    newest, step = newest_step(plan.folder), plan.resume.step
    return newest, newest_step(plan.resume.source) if step is None else step


def _resume_point(plan: RunPlan, newest: int | None, begun: int | None) -> tuple[ResumeRequest, int | None]:
    """What a restart of `plan` resumes, and from which step; None: from the beginning.

    `newest` and `begun` as in `_begun`. --reset applies again unless a checkpoint was saved since,
    which contains its effect.
    """
    from launcher.run_folder.checkpoint_search import newest_step

    assert plan.folder is not None, "as in `repeat`"
    saved = newest_step(plan.folder)
    is_new = saved is not None and saved != newest and saved > (begun or 0)
    if is_new or plan.resume is None:
        return ResumeRequest(plan.folder), saved
    return plan.resume, begun
