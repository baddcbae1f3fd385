"""The training loop: weigh, accumulate, update, then do what all ranks agreed on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from training.accumulate import accumulate
from training.callbacks.base import RUNGS, Action, Outcome
from training.resources.oom import OomFallback, OutOfMemory, is_out_of_memory

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine
    from models.base import Task
    from training.data.loader import Batches
    from training.run_state import Run


def train(task: Task, engine: Engine, module: Module, batches: Batches, run: Run) -> Outcome:
    """Take optimizer steps until `run` is complete or some rank asks to stop. Collective.

    Losses are sums over units (tokens, pixels, samples), divided by the units of the whole global
    batch: accumulation, padding and uneven ranks give the loss of one big batch. What a fault
    raises passes through, after the hooks were told of the end; `batches` are closed.
    """
    try:
        run.start(task, engine, module, batches)
        oom_fallback = OomFallback(engine, batches, run.throttle)
        while not run.is_over:
            micro_batches = batches.take()
            units, asked = run.agree(micro_batches)  # what hooks asked since the last step
            if asked and _act(asked, run):
                continue
            if run.is_over:
                break
            run.updater.prepare(task, engine, run.step)
            forward = run.stragglers.own
            window = oom_fallback.run(
                partial(accumulate, task, engine, module, micro_batches, units, forward), run.step
            )
            if window is None:
                continue
            update = run.updater.take(engine, window, run.step + 1)
            run.record(window, update, batches.waited_s)
            if due := run.due():  # a matter of the step alone: ranks need not agree
                _act(due, run)
        return run.finish()
    except BaseException as fault:
        run.fail(fault)
        if is_out_of_memory(fault):
            raise OutOfMemory(fault, batches) from fault
        raise
    finally:
        batches.close()


def _act(asked: Action, run: Run) -> bool:
    """Do what was asked for; true where the batches of the next step are to be taken again."""
    anew = run.relieve(asked) if asked & RUNGS else False
    if Action.EVALUATE in asked:
        run.evaluate()
    if Action.SAVE in asked:
        run.save()  # after evaluation, so that the best can be told
    return anew
