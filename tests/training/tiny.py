"""A small task with known numbers, and the parts of a run of it."""

import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gearshift.engines.base import Options
from gearshift.engines.catalog import build_engine, find
from gearshift.engines.environment import RankInfo
from gearshift.engines.world import ProcessWorld
from gearshift.engines.zero.config import shipped
from gearshift.models.base import DataError, Goal, Loss
from gearshift.training import settings
from gearshift.training.callbacks.base import Action, Callback, Outcome
from gearshift.training.data.loader import Batches, EvaluationBatches
from gearshift.training.data.samples import DataOrder, Samples
from gearshift.training.evaluation.evaluate import HeldOut, HeldOutPart
from gearshift.training.loop import train
from gearshift.training.optim import optimizer
from gearshift.training.run_state import TrainingRun
from gearshift.training.train_plan import solve
from tests.training.shelf import Shelf

WIDTH = 4


class TinySplit:
    """Sample i: a row of noise, and a target with i % 4 units; the draws move the row a little."""

    def __init__(self, length, bad=None, noise=0.1):
        self._length, self._bad, self._noise = length, bad, noise

    def __len__(self):
        return self._length

    def sample(self, index, draws):
        if index == self._bad:
            raise DataError(f"row {index} cannot be read")
        row = np.random.default_rng(index).normal(size=(2, WIDTH))
        x = row[0] + self._noise * draws.rng().normal(size=WIDTH)
        return {"index": index, "x": x, "y": row[1], "mask": np.arange(WIDTH) < index % WIDTH}


class TinyNet(nn.Module):
    """A linear map after dropout; `unused` is never reached."""

    def __init__(self, dropout=0.0, unused=False, dtype=torch.float64):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(WIDTH, WIDTH, dtype=dtype)
        if unused:
            self.unused = nn.Parameter(torch.zeros(2, 2))

    def forward(self, x):  # [batch, width] -> [batch, width]
        return self.linear(self.drop(x))


class TinyMetric:
    """Squared error per unit, and the number of samples and units."""

    def update(self, model, batch):
        error = ((model(batch["x"]) - batch["y"]) ** 2 * batch["mask"]).sum()
        units, samples = batch["mask"].sum(), len(batch["x"])
        return torch.stack([error, units.to(error), torch.full_like(error, samples)])

    def result(self, counts):
        error, units, samples = counts.tolist()
        return {"error": error / max(units, 1), "units": units, "samples": samples}


@dataclass
class TinyTask:
    """Squares of errors, summed over the units of each row."""

    train: int = 24
    val: int = 7
    bad: int | None = None
    dropout: float = 0.0
    unused: bool = False
    infinite_at: Sequence[int] = ()
    """Samples whose loss is infinite."""
    nan_gradient_at: Sequence[int] = ()
    """Samples whose loss is finite, and their gradient is not."""
    dtype: torch.dtype = torch.float64
    control: Mapping[str, Mapping[str, float]] | None = None
    """The bands of a noise control."""
    units = "numbers"
    goal = Goal("error", "min")

    def setup(self): ...

    def build(self):
        return TinyNet(self.dropout, self.unused, self.dtype)

    def data(self, split):
        return TinySplit(self.train, self.bad) if split == "train" else TinySplit(self.val)

    def collate(self, samples):
        batch = {name: torch.as_tensor(np.stack([s[name] for s in samples])) for name in samples[0]}
        return batch | {name: batch[name].to(self.dtype) for name in ("x", "y")}

    def num_units(self, batch):
        return int(batch["mask"].sum())

    def loss(self, model, batch):
        found = model(batch["x"])
        for index in batch["index"].tolist():
            if index in self.nan_gradient_at:
                # The square root of 0 has an infinite slope.
                found = found + ((found - found.detach()) ** 2).sum().sqrt()
        errors = (found - batch["y"]) ** 2 * batch["mask"]
        if any(index in self.infinite_at for index in batch["index"].tolist()):
            errors = errors.masked_fill(batch["mask"], torch.inf)  # its gradient is finite
        return Loss(errors.sum(), {"absolute": errors.detach().sqrt().sum()})

    def metric(self):
        return TinyMetric()

    def blocks(self, model):
        return [model.linear]

    def preview(self, model):
        return f"training: {model.training}"

    def flops_per_sample(self, model):
        return None

    def facts(self):
        return {} if self.control is None else {"control": self.control}


class TwoTermsTask(TinyTask):
    """The mean square of errors, and the mean over every third sample of its largest output.

    Numbers that the mask leaves out count as computed.
    """

    paces: list[tuple[float, float]] | None = None

    def num_tokens(self, batch):
        return batch["mask"].numel()

    def num_units(self, batch):
        return {"square": int(batch["mask"].sum()), "peak": int((batch["index"] % 3 == 0).sum())}

    def loss(self, model, batch):
        found = model(batch["x"])
        errors = (found - batch["y"]) ** 2 * batch["mask"]
        peaks = found.amax(1) * (batch["index"] % 3 == 0)
        return Loss({"square": errors.sum(), "peak": peaks.sum()}, {})

    def set_progress(self, epoch, epochs):
        self.paces = [*(self.paces or []), (epoch, epochs)]


class RecordingCallback(Callback):
    """Records every call; requests actions at given steps."""

    def __init__(self, requests=None):
        self.requests = requests or {}
        self.calls, self.steps, self.lines, self.events = [], [], [], []
        self.evaluations, self.saved_steps, self.outcomes = [], [], []
        self.shown, self.samples = {}, {}

    def start(self, train_plan):
        self.calls.append("start")

    def step(self, step):
        self.calls.append(f"step {step.step}")
        self.steps.append(step)
        return self.requests.get(step.step, Action.NOTHING)

    def logged(self, line):
        self.lines.append(line)

    def evaluated(self, evaluation):
        self.calls.append(f"evaluated {evaluation.step}")
        self.evaluations.append(evaluation)

    def predicted(self, predictions, step):
        assert step not in self.shown
        self.shown[step] = predictions

    def sampled(self, predictions, when, step):
        self.samples[when] = step, predictions

    def throttled(self, available):
        self.calls.append("throttled")

    def saved(self, folder, step, seconds):
        self.calls.append(f"saved {step}")
        self.saved_steps.append(step)

    def event(self, kind, facts):
        self.events.append((kind, facts))

    def end(self, outcome):
        self.calls.append("end")
        self.outcomes.append(outcome)

    def kinds(self):
        return [kind for kind, _ in self.events]


@dataclass
class Result:
    """The result of a run."""

    outcome: Outcome
    recorder: RecordingCallback
    shelf: Shelf
    weights: dict[str, Tensor]


@contextmanager
def ticking(looks_in_a_second=1000):
    """Within, the clock goes on at each look, and only then: budgets of time are exact."""
    looks = count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: next(looks) / looks_in_a_second)
        yield


def one_rank():
    return ProcessWorld(RankInfo(), torch.device("cpu"), 60.0)


def make_settings(**changes):
    """All settings by default, with changes by section: `train={"epochs": 2}`."""
    sections = ("train", "optim", "schedule", "loader", "eval", "stop", "save", "log", "tracking")
    # In the foreground, so that saves are reported at their step.
    changes = changes | {"save": {"async": False} | changes.get("save", {})}
    made = {n: getattr(settings, n.capitalize())(**changes.get(n, {})) for n in sections}
    precision, track = changes.get("precision", "fp32"), changes.get("track", [])
    return SimpleNamespace(**made, precision=precision, track=track)


def run_tiny(
    world,
    task=None,
    callback=None,
    *,
    global_batch=8,
    micro_batch=2,
    engine="local",
    before=None,
    until=None,
    shelf=None,
    has_test=False,
    shares=(),
    time_s=None,
    fits=(),
    **changes,
):
    """A whole run, as in a worker process; with `has_test` the end evaluates the test split.

    `shares`: how ranks share the global batch, from which steps on.
    """
    task, callback, shelf = task or TinyTask(), callback or RecordingCallback(), shelf or Shelf()
    made = make_settings(**changes)
    split = task.data("train")
    order = DataOrder(len(split), global_batch, made.train.seed)
    train_plan = solve(
        made,
        samples=len(split),
        global_batch=global_batch,
        micro_batch=micro_batch,
        world_size=world.size,
        units=task.units,
        first_step=before.step if before else 0,
        starts=before.starts if before else None,
        until=until,
        time_s=time_s,
    )
    train_plan = replace(train_plan, shares=shares)
    torch.manual_seed(0)
    model = task.build()
    file = find(engine).ds_config
    options = Options(
        micro_batch=micro_batch,
        accumulation=train_plan.accumulation,
        ds_config=shipped(file) if file else {},
    )
    if made.precision != "fp32":
        options = replace(options, precision=made.precision)
    built = build_engine(engine, world, options)
    module = built.prepare(model, optimizer.spec(made, model, world), task.blocks(model))
    if before:
        before.checkpoint.fill(built.state().pieces)
        built.load(before.checkpoint.steps, before.checkpoint.loss_scale)
    batches = Batches(Samples(task, split, made.train.seed), order, train_plan, world, made.loader)
    samples = Samples(task, task.data("val"), made.train.seed)
    most = made.eval.samples
    validation = EvaluationBatches(samples, micro_batch, world, made.loader, limit=most)
    held_out = HeldOut([HeldOutPart(task, validation)])
    test = EvaluationBatches(samples, micro_batch, world, made.loader) if has_test else None
    run = TrainingRun(
        made,
        train_plan,
        [callback],
        held_out,
        shelf,
        {},
        before,
        test=test,
        fits=fits or (before.fits if before else ()),
    )
    outcome = train(task, built, module, batches, run)
    weights = {p.name: p.data.clone() for p in built.state().pieces if p.kind == "weight"}
    built.close()
    return Result(outcome, callback, shelf, weights)
