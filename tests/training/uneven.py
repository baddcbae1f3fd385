"""Two ranks that train together, of which one may compute or read more than the other."""

import socket
import time

import torch
from torch import nn

from engines.base import OptimizerSpec
from engines.catalog import build_engine
from tests.engines.parity import Case, options
from tests.training.tiny import RecordingCallback
from training.agreement import agree_later
from training.callbacks.base import Step
from training.callbacks.callback_list import CallbackList
from training.step_metrics import RunMetrics
from training.step_timer import OPTIMIZER, StepTimer, clock_of
from training.stragglers import Stragglers
from training.train_plan import TrainPlan

WIDTH = 192


class Repeated(nn.Linear):
    """A linear map that is computed `times` times for one result."""

    times = 1

    def forward(self, x):  # [batch, width] -> [batch, width]
        for _ in range(self.times):
            found = super().forward(x)
        return found


def read(times):
    """A batch, for which so much is read."""
    for number in range(times):
        rows = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(number))
    return rows


def train(world, engine, phases):
    """The events of a rank; in each phase rank 1 has so many `times` and `reads`.

    A phase ends after `steps`, or after `until` events, which all ranks have equally.
    """
    torch.manual_seed(0)
    recorder = RecordingCallback()
    net = nn.Sequential(*(Repeated(WIDTH, WIDTH) for _ in range(3)))
    spec = OptimizerSpec([{}], lambda name, p: 0, lambda groups: torch.optim.SGD(groups, lr=1e-3), None)
    made = build_engine(engine, world, options(Case(engine), world))
    module = made.prepare(net, spec, list(net))
    timer = StepTimer()
    record = RunMetrics(TrainPlan(10**6, 10**6, 2, 1, 1, world.size, "rows"), 1, "fp32", timer)
    timer.start(clock_of(world.device))
    stragglers = Stragglers(1.5, world, CallbackList([recorder]), 0, block_s=0.1)
    timer.begin_steps(bool)
    step = 0
    for phase in phases:
        for layer in net:
            layer.times = phase.get("times", 1) if world.rank == 1 else 1
        for _ in range(phase["steps"]):
            if len(recorder.events) == phase.get("until"):
                break
            step += 1
            began = time.perf_counter()
            rows = read(phase.get("reads", 1) if world.rank == 1 else 1)
            data_s = time.perf_counter() - began
            agreement = agree_later(world, {}, 0, stragglers.own_times())
            with made.accumulate(last=True):
                with timer.forward():
                    loss = module(rows).square().mean()
                made.backward(loss)
            with timer.within(OPTIMIZER):
                update = made.step()
            step_result = Step(step, loss.detach(), {}, 1, update.norm, 0.1, False, None, data_s)
            if record.add(step_result):
                line = record.line(world)
                stragglers.note(line, line.forward_time_s)
            stragglers.update(agreement()[2])
    made.close()
    assert all(facts["host"] == socket.gethostname() for _, facts in recorder.events), recorder.events
    return recorder.events
