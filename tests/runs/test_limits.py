"""Runs on machines that are too small for them: real memory, real limits, whole command lines."""

import json
import re
import shutil
from pathlib import Path

import pytest

import gearshift
from tests.control_group import limited
from tests.runs import hungry as hungry_task
from tests.waiting import LIMIT_S

GIB = 2**30
ROUNDING = 1e-5  # sums of float32 in another order
ARGS = ("--model", "hungry:Hungry", "--set", "log.every=1", "--set", "eval.every=null")


@pytest.fixture
def hungry(program):
    shutil.copy(Path(__file__).with_name("hungry.py"), program.folder)
    return program


def run(program, out, *args, hunger="", prefix=(), **options):
    """One run of the hungry task, to its end."""
    prefix = ("env", f"HUNGER={hunger}", *prefix)
    return program(*ARGS, *args, "--out", out, prefix=prefix, **options)


def lines(program, out, name="metrics.jsonl"):
    return [json.loads(line) for line in (program.folder / out / name).read_text().splitlines()]


def losses(program, out):
    return {x["step"]: x["loss"] for x in lines(program, out) if x["kind"] == "train"}


def events(program, out, kind):
    return [x["facts"] for x in lines(program, out, "events.jsonl") if x["kind"] == kind]


@pytest.mark.slow
def test_out_of_memory_halves_the_micro_batch_and_changes_no_loss(hungry):
    done = run(hungry, "run", hunger="activations 200")

    assert done.returncode == 0, done.stderr
    (event,) = events(hungry, "run", "out_of_memory")
    assert "can't allocate memory" in event["text"]
    assert "out of memory in step 1" in done.stdout
    assert "micro-batch 8 → 4, accumulation 4" in done.stdout
    assert run(hungry, "plain").returncode == 0
    assert losses(hungry, "run") == pytest.approx(losses(hungry, "plain"), rel=ROUNDING)


@pytest.mark.usefixtures("one_thread")
def test_out_of_memory_in_an_evaluation_restarts_with_smaller_ones(tmp_path, monkeypatch, capfd):
    def trained(out):
        run = gearshift.train(
            model="tests.runs.hungry:Hungry",
            engine="local",
            settings={"log.every": 1, "train.max_steps": 6, "eval.every": 4, "save.every": 1},
            out=tmp_path / out,
        )
        assert run.status == "completed"
        return [(line["step"], line["loss"]) for line in run.metrics("train")]

    expected = trained("undisturbed")
    monkeypatch.setattr(hungry_task, "KIND", "evaluation")
    monkeypatch.setattr(hungry_task, "AMOUNT", "4")
    monkeypatch.setattr(hungry_task, "batches", 0)
    found = trained("run")

    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6]
    assert dict(found) == pytest.approx(dict(expected), rel=ROUNDING)
    (line,) = [one for one in capfd.readouterr().err.splitlines() if one.startswith("restart")]
    assert re.fullmatch("restart with micro-batches of 4 from step [123]", line)
    step = int(line.split()[-1])
    assert found[:step] == expected[:step]


@pytest.mark.slow
def test_out_of_memory_on_one_rank_restarts_all_with_smaller_micro_batches(hungry):
    args = ("--nproc", "2", "--set", "save.every=2", "--set", "train.accumulation=4")
    # The other rank ends long before it would give up: else the subprocess takes too long.
    args += ("--set", "device=cpu", "--set", f"engine.timeout_s={2 * LIMIT_S}")
    done = run(hungry, "run", *args, hunger="rank 1", timeout=LIMIT_S)

    assert done.returncode == 0, done.stderr
    assert (
        "error: rank 1 on" in done.stderr and "out of memory with a micro-batch of" in done.stderr
    )
    assert "restart with micro-batches of 4 from step" in done.stderr
    (event,) = events(hungry, "run", "out_of_memory")
    assert (event["rank"], event["micro_batch"], event["accumulation"]) == (1, 4, 4)
    assert run(hungry, "plain", "--set", "train.accumulation=4").returncode == 0  # on one rank
    assert losses(hungry, "run") == pytest.approx(losses(hungry, "plain"), rel=ROUNDING)


@pytest.fixture
def within():
    """A command prefix that limits memory to one GiB."""
    with limited(GIB) as prefix:
        yield prefix


@pytest.mark.slow
def test_real_pressure_in_a_control_group_saves_ends_and_resumes_elsewhere(hungry, within):
    args = ("--set", "limits.check_every_s=0.2", "--set", "schedule.name=constant")
    args += ("--set", "schedule.warmup=0")
    args += ("--set", "train.epochs=100000", "--num-workers", "1", "--max-steps")
    leak = f"leak {int(0.96 * GIB)}"
    stopped = run(hungry, "run", *args, "20000", hunger=leak, prefix=within)

    assert stopped.returncode == 75, stopped.stderr
    kinds = [x["kind"] for x in lines(hungry, "run", "events.jsonl")]
    rungs = [k for k in kinds if k in ("fewer_workers", "smaller_micro_batch", "pressure")]
    assert rungs[:2] == ["fewer_workers", "smaller_micro_batch"] and rungs[-1] == "pressure"
    pressure = events(hungry, "run", "pressure")[-1]
    assert "ram" in pressure["over"] and pressure["ram"] <= 100
    result = json.loads((hungry.folder / "run/result.json").read_text())
    end = str(result["steps"] + 20)

    rest = hungry("resume", "run", "--max-steps", end, prefix=("env", "HUNGER="))
    assert rest.returncode == 0, rest.stderr
    assert run(hungry, "whole", *args, end).returncode == 0
    assert losses(hungry, "run") == pytest.approx(losses(hungry, "whole"), rel=ROUNDING)
