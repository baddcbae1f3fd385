"""A small task with known numbers, and the parts of a run of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.base import Options, World
from engines.catalog import build_engine, find
from engines.environment import RankInfo
from engines.world import ProcessWorld
from engines.zero.config_file import shipped
from models.base import DataError, Goal, Loss, Predictions
from tests.training.shelf import Shelf
from training import settings
from training.callbacks.base import Action, Callback, EvalResult, Outcome, Step, StepMetrics
from training.checkpoint.restore import fill
from training.checkpoint.resume_point import ResumePoint
from training.data.loader import Batches, EvaluationBatches
from training.data.order import DataOrder
from training.data.samples import Samples
from training.evaluation.evaluate import SplitSamples
from training.loop import train
from training.optim import optimizer
from training.run_state import TrainingRun
from training.settings import Tracking
from training.train_plan import solve

WIDTH = 4


class TinySplit:
    """Sample i: a row of noise, and a target with i % 4 units; the draws move the row a little."""

    def __init__(self, length: int, bad: int | None = None, noise: float = 0.1):
        self._length, self._bad, self._noise = length, bad, noise

    def __len__(self) -> int:
        return self._length

    def sample(self, index: int, draws) -> dict[str, Any]:
        if index == self._bad:
            raise DataError(f"row {index} cannot be read")
        row = np.random.default_rng(index).normal(size=(2, WIDTH))
        x = row[0] + self._noise * draws.rng().normal(size=WIDTH)
        return {"index": index, "x": x, "y": row[1], "mask": np.arange(WIDTH) < index % WIDTH}


class TinyNet(nn.Module):
    """A linear map after dropout; `unused` is never reached."""

    def __init__(
        self, dropout: float = 0.0, unused: bool = False, dtype: torch.dtype = torch.float64
    ):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(WIDTH, WIDTH, dtype=dtype)
        if unused:
            self.unused = nn.Parameter(torch.zeros(2, 2))

    def forward(self, x: Tensor) -> Tensor:  # [batch, width] -> [batch, width]
        return self.linear(self.drop(x))


class TinyMetric:
    """Squared error per unit, and the number of samples and units."""

    def update(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        error = ((model(batch["x"]) - batch["y"]) ** 2 * batch["mask"]).sum()
        units, samples = batch["mask"].sum(), len(batch["x"])
        return torch.stack([error, units.to(error), torch.full_like(error, samples)])

    def result(self, counts: Tensor) -> dict[str, float]:
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

    def setup(self) -> None: ...

    def build(self) -> nn.Module:
        return TinyNet(self.dropout, self.unused, self.dtype)

    def data(self, split: str) -> TinySplit:
        return TinySplit(self.train, self.bad) if split == "train" else TinySplit(self.val)

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch = {name: torch.as_tensor(np.stack([s[name] for s in samples])) for name in samples[0]}
        return batch | {name: batch[name].to(self.dtype) for name in ("x", "y")}

    def num_units(self, batch: Mapping[str, Any]) -> int:
        return int(batch["mask"].sum())

    def loss(self, model: nn.Module, batch: Mapping[str, Any]) -> Loss:
        found = model(batch["x"])
        for index in batch["index"].tolist():
            if index in self.nan_gradient_at:
                # The square root of 0 has an infinite slope.
                found = found + ((found - found.detach()) ** 2).sum().sqrt()
        errors = (found - batch["y"]) ** 2 * batch["mask"]
        if any(index in self.infinite_at for index in batch["index"].tolist()):
            errors = errors.masked_fill(batch["mask"], torch.inf)  # its gradient is finite
        return Loss(errors.sum(), {"absolute": errors.detach().sqrt().sum()})

    def metric(self) -> TinyMetric:
        return TinyMetric()

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        return [model.linear]

    def preview(self, model: nn.Module) -> str | None:
        return f"training: {model.training}"

    def flops_per_sample(self, model: nn.Module) -> float | None:
        return None

    def facts(self) -> Mapping[str, Any]:
        return {} if self.control is None else {"control": self.control}


class TwoTermsTask(TinyTask):
    """The mean square of errors, and the mean over every third sample of its largest output."""

    paces: list[tuple[float, float]] | None = None

    def num_units(self, batch: Mapping[str, Any]) -> dict[str, int]:
        return {"square": int(batch["mask"].sum()), "peak": int((batch["index"] % 3 == 0).sum())}

    def loss(self, model: nn.Module, batch: Mapping[str, Any]) -> Loss:
        found = model(batch["x"])
        errors = (found - batch["y"]) ** 2 * batch["mask"]
        peaks = found.amax(1) * (batch["index"] % 3 == 0)
        return Loss({"square": errors.sum(), "peak": peaks.sum()}, {})

    def set_progress(self, epoch: float, epochs: float) -> None:
        self.paces = [*(self.paces or []), (epoch, epochs)]


class RecordingCallback(Callback):
    """Records every call; requests actions at given steps."""

    def __init__(self, requests: Mapping[int, Action] | None = None):
        self.requests = requests or {}
        self.calls: list[str] = []
        self.steps: list[Step] = []
        self.lines: list[StepMetrics] = []
        self.evaluations: list[EvalResult] = []
        self.shown: dict[int, Predictions] = {}
        self.samples: dict[str, tuple[int, Predictions]] = {}
        self.saved_steps: list[int] = []
        self.events: list[tuple[str, Mapping[str, object]]] = []
        self.outcomes: list[Outcome] = []

    def start(self, train_plan) -> None:
        self.calls.append("start")

    def step(self, step: Step) -> Action:
        self.calls.append(f"step {step.step}")
        self.steps.append(step)
        return self.requests.get(step.step, Action.NOTHING)

    def logged(self, line: StepMetrics) -> None:
        self.lines.append(line)

    def evaluated(self, evaluation: EvalResult) -> Action:
        self.calls.append(f"evaluated {evaluation.step}")
        self.evaluations.append(evaluation)
        return Action.NOTHING

    def predicted(self, predictions: Predictions, step: int) -> None:
        assert step not in self.shown
        self.shown[step] = predictions

    def sampled(self, predictions: Predictions, when: str, step: int) -> None:
        self.samples[when] = step, predictions

    def throttled(self, available: Action) -> Action:
        self.calls.append("throttled")
        return Action.NOTHING

    def saved(self, folder: Path, step: int, seconds: float) -> None:
        self.calls.append(f"saved {step}")
        self.saved_steps.append(step)

    def event(self, kind: str, facts: Mapping[str, object]) -> None:
        self.events.append((kind, facts))

    def end(self, outcome: Outcome) -> None:
        self.calls.append("end")
        self.outcomes.append(outcome)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]


@dataclass
class Result:
    """The result of a run."""

    outcome: Outcome
    recorder: RecordingCallback
    shelf: Shelf
    weights: dict[str, Tensor]


def one_rank() -> World:
    return ProcessWorld(RankInfo(), torch.device("cpu"), 60.0)


def make_settings(**changes: Mapping[str, Any]) -> Any:
    """All settings by default, with changes by section: `train={"epochs": 2}`."""
    sections = {
        "train": settings.Train,
        "optim": settings.Optim,
        "schedule": settings.Schedule,
        "loader": settings.Loader,
        "eval": settings.Eval,
        "stop": settings.Stop,
        "save": settings.Save,
        "log": settings.Log,
    }
    # In the foreground, so that saves are reported at their step.
    changes = changes | {"save": {"async": False} | changes.get("save", {})}
    made: dict[str, Any] = {name: kind(**changes.get(name, {})) for name, kind in sections.items()}
    made["tracking"] = Tracking(**changes.get("tracking", {}))
    precision, track = changes.get("precision", "fp32"), changes.get("track", [])
    return SimpleNamespace(**made, precision=precision, track=track)


def run_tiny(
    world: World,
    task: TinyTask | None = None,
    callback: RecordingCallback | None = None,
    *,
    global_batch: int = 8,
    micro_batch: int = 2,
    engine: str = "local",
    before: ResumePoint | None = None,
    until: int | None = None,
    shelf: Shelf | None = None,
    has_test: bool = False,
    **changes: Any,
) -> Result:
    """A whole run, as in a worker process; with `has_test` the end evaluates the test split."""
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
    )
    torch.manual_seed(0)
    model = task.build()
    file = find(engine).ds_config
    options = Options(
        micro_batch=micro_batch,
        accumulation=train_plan.accumulation,
        ds_config=shipped(file) if file else {},
    )
    built = build_engine(engine, world, options)
    module = built.prepare(model, optimizer.spec(made, model, world), task.blocks(model))
    if before:
        fill(before.checkpoint, built.state().pieces)
        built.load(before.checkpoint.steps, before.checkpoint.loss_scale)
    batches = Batches(Samples(task, split, made.train.seed), order, train_plan, world, made.loader)
    samples = Samples(task, task.data("val"), made.train.seed)
    most = made.eval.samples
    validation = EvaluationBatches(samples, micro_batch, world, made.loader, limit=most)
    test = SplitSamples(samples, micro_batch, world, made.loader) if has_test else None
    run = TrainingRun(made, train_plan, [callback], validation, shelf, {}, before, test=test)
    outcome = train(task, built, module, batches, run)
    weights = {p.name: p.data.clone() for p in built.state().pieces if p.kind == "weight"}
    built.close()
    return Result(outcome, callback, shelf, weights)
