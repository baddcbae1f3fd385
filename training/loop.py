"""The training loop: count units, accumulate, update, then take the actions all ranks agreed on."""

from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING

from gearshift.training.accumulate import accumulate
from gearshift.training.callbacks.base import THROTTLING, Action, Outcome
from gearshift.training.step_metrics import DATA, OPTIMIZER, OTHER
from gearshift.training.throttle import OutOfMemory, is_out_of_memory

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import Engine
    from gearshift.models.base import Task
    from gearshift.training.data.loader import Batches
    from gearshift.training.run_state import TrainingRun


def train(
    task: Task, engine: Engine, module: Module, batches: Batches, run: TrainingRun
) -> Outcome:
    """Take optimizer steps until `run` is over or some rank requests a stop. Collective.

    Losses are sums over units (tokens, pixels, samples), divided by the units of the whole global
    batch: accumulation, padding and uneven ranks give the loss of one big batch. Exceptions pass
    through after the callbacks saw the end of the run; `batches` are closed.
    """
    try:
        run.start(task, engine, module, batches)
        gc.freeze()  # half a million objects, which the collector would visit again and again
        enter = run.timer.enter
        while not run.is_over:
            enter(DATA)
            micro_batches = batches.take()
            enter(OTHER)
            units, actions = run.agree(micro_batches)
            if actions and _act(actions, run):
                continue  # with other batches
            if run.is_over:
                break
            if run.rebalance():
                continue  # with other shares of the same batch
            run.agree_ahead(batches)
            run.updater.prepare(task, engine, run.step)
            run.passes = micro_batches
            accumulated = run.throttle.without_oom(
                partial(accumulate, task, engine, module, micro_batches, units, enter), run.step
            )
            if accumulated is None:
                continue  # with smaller micro-batches
            enter(OPTIMIZER)
            update = run.updater.take(engine, accumulated, run.step + 1)
            run.passes = None
            enter(OTHER)
            run.record(accumulated, update, batches.waited_s)
            run.fit()
            if due := run.due():  # follows from the step number: ranks need not agree
                _act(due, run)
        _act(run.last_requests(), run)
        return run.finish()
    except BaseException as error:
        run.fail(error)
        if is_out_of_memory(error):
            raise OutOfMemory(error, batches) from error
        raise
    finally:
        gc.unfreeze()
        batches.close()


def _act(actions: Action, run: TrainingRun) -> bool:
    """Carry out `actions`; True: the batches of the next step must be taken again."""
    retakes_batches = bool(actions & THROTTLING) and run.throttle.run(actions, run.step)
    if Action.EVALUATE in actions:
        run.evaluate()
    if Action.SAVE in actions:
        run.save()  # after the evaluation, so that the best is current
    return retakes_batches
