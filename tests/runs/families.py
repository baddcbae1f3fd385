"""The tiny model of a family, trained on its embedded data for a few steps under any engine."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from gearshift.engines.base import Options
from gearshift.engines.catalog import build_engine, find
from gearshift.engines.zero.config import shipped
from gearshift.models.base import Context, TracksProgress
from gearshift.models.catalog import FAMILIES
from gearshift.training import seeds
from gearshift.training.accumulate import accumulate, total_units
from gearshift.training.agreement import Interruption, agree_later
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.restore import restore
from gearshift.training.data.loader import EvaluationBatches
from gearshift.training.data.samples import DataOrder, Samples
from gearshift.training.evaluation.evaluate import evaluate
from gearshift.training.optim import optimizer
from tests.engines.parity import StepResult, outcome
from tests.launcher.given import resolved
from tests.runs.crossing import Source, saved_halfway

GLOBAL_BATCH, MICRO_BATCH = 8, 2
SAVED_AT, STEPS = 2, 4


@dataclass(frozen=True)
class TrainingRun(Source):
    """A run of STEPS steps, with the checkpoint of step SAVED_AT."""

    metrics: Mapping[str, float]
    """Of the first few samples of the validation split, after the last step."""


@dataclass(frozen=True)
class Few:
    """The first samples of a split, enough to evaluate under an engine."""

    split: Any
    count: int = 6

    def __len__(self):
        return min(self.count, len(self.split))

    def sample(self, index, draws):
        return self.split.sample(index, draws)


def begin(world, family, engine, run):
    """Train, save, continue, evaluate. Collective."""
    with prepared(world, family, engine, run) as (task, built, module):
        train = partial(_train, world, task, built, module)
        found = saved_halfway(world, engine, built, run, train, SAVED_AT, STEPS)
        return *found, _evaluated(world, task, module)


def resume_run(world, family, engine, run, checkpoint):
    """Restore a checkpoint into a model with other weights: the state then, and at the end."""
    with prepared(world, family, engine, run, seed=1) as (task, built, module):
        restore(open_checkpoint(checkpoint), built)
        taken = outcome(built, [])
        return taken, outcome(built, _train(world, task, built, module, SAVED_AT + 1, STEPS))


@contextmanager
def prepared(world, family, engine, run, seed=2, precision="fp32"):
    """The task of a family, and its tiny model under an engine, as a worker builds them.

    With the weights of seed 0, abr interpolates exactly at a kink: rounding decides a gradient.
    """
    # A learning rate that does not magnify rounding within four steps.
    run_settings = resolved(
        "optim.lr=3e-3", model=f"{family}:tiny", engine=engine, world_size=world.size
    )
    settings = run_settings.settings
    module, _, name = FAMILIES[family].task.partition(":")
    context = Context(0, settings.eval.share, run, world.device)
    task = getattr(import_module(module), name)(settings.model, settings.data, context)
    for rank in range(world.size):
        if world.rank == rank:
            task.setup()
        world.wait_for_all()
    seeds.seed_weights(seed)
    model = task.build()
    file = find(engine).ds_config
    built = build_engine(
        engine,
        world,
        Options(
            precision,
            channels_last=task.channels_last,
            ds_config=shipped(file) if file else {},
            micro_batch=MICRO_BATCH,
            accumulation=GLOBAL_BATCH // MICRO_BATCH // world.size,
        ),
    )
    try:
        module = built.prepare(model, optimizer.spec(settings, model, world), task.blocks(model))
        module.train()
        yield task, built, module
    finally:
        built.close()


def _train(world, task, engine, module, first, last):
    split = task.data("train")
    samples, order = Samples(task, split, 0), DataOrder(len(split), GLOBAL_BATCH, 0)
    taken = []
    for step in range(first, last + 1):
        seeds.seed_step(0, step, world.rank, world.device)
        if isinstance(task, TracksProgress):
            task.set_progress(float(step), float(STEPS))
        epoch, share = order.share(step - 1, world.rank, world.size, MICRO_BATCH)
        micro_batches = [samples[epoch, indices] for indices in share]
        own = total_units(micro_batch.num_units for micro_batch in micro_batches)
        units, *_ = agree_later(world, own, 0)()
        window = accumulate(task, engine, module, micro_batches, units)
        update = engine.step()
        loss = world.sum(window.loss.clone()).item() / world.size
        taken.append(StepResult(loss, update.norm.item(), update.skipped, update.loss_scale))
    return taken


def _evaluated(world, task, module):
    samples = Samples(task, Few(task.data("val")), 0)
    loader = resolved("loader.workers=0").settings.loader
    batches = EvaluationBatches(samples, MICRO_BATCH, world, loader)
    return evaluate(task, module, batches, Interruption(world))
