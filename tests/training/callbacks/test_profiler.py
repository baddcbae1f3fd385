"""A profile has the operators of exactly the steps it was asked for, and no other step is traced."""

import gzip
import json

import pytest
import torch

from gearshift.training.callbacks.profiler import OPERATORS, Profiler
from gearshift.training.settings import PROFILE_WARMUP
from gearshift.training.storage import Storage
from tests.training.facts import outcome, step, train_plan

LARGE = (32, 64)
"""The shape of a product in each step."""


@pytest.fixture
def events():
    return []


def train(tmp_path, events, steps, total, device="cpu", first=0, status="completed"):
    """`total` steps with a product each, of which `steps` are profiled."""
    where = torch.device(device)
    profiler = Profiler(steps, Storage(tmp_path), where, lambda k, f: events.append((k, f)))
    profiler.start(train_plan(first_step=first))
    for number in range(first + 1, first + total + 1):
        for _ in range(number):  # as many as the number of the step, which its count reveals
            torch.ones(LARGE, device=where) @ torch.ones(LARGE[::-1], device=where)
        profiler.step(step(number))
    profiler.end(outcome(status=status))


def rows(tmp_path):
    """The cells of each operator, by name."""
    lines = (tmp_path / "profile/operators.txt").read_text().splitlines()
    split = [line.split("  ") for line in lines]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in split]
    return {row[0]: row for row in cells if len(row) > 2 and not row[0].startswith("-")}


def calls(tmp_path, name):
    return int(rows(tmp_path)[name][-1])


def test_a_profile_has_the_steps_after_the_warm_up_and_a_trace_that_perfetto_reads(
    tmp_path, events
):
    train(tmp_path, events, steps=3, total=9)
    first = PROFILE_WARMUP + 1
    assert calls(tmp_path, "aten::mm") == sum(range(first, first + 3))
    facts = {"trace": "profile/trace-rank0.json.gz", "first_step": first, "steps": 3}
    assert events == [("profiled", facts)]
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["operators.txt", "trace-rank0.json.gz"]

    trace = json.loads(gzip.decompress((tmp_path / "profile/trace-rank0.json.gz").read_bytes()))
    names = [event.get("name") for event in trace["traceEvents"]]
    assert names.count("aten::mm") == sum(range(first, first + 3))

    assert 0 < len(rows(tmp_path)) - 1 <= OPERATORS  # beside the heading


@pytest.mark.gpu
def test_a_gpu_has_the_time_of_its_kernels(tmp_path, events):
    train(tmp_path, events, steps=2, total=5, device="cuda")
    assert "Self CUDA time total" in (tmp_path / "profile/operators.txt").read_text()
