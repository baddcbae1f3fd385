"""Every rung of the ladder trains, is verified, and resumes under another engine."""

import json

import pytest

from engines.catalog import ENGINES
from launcher.base.diagnostics import plain
from launcher.plan.ladder import RUNGS, TRAINED
from tests.runs.conftest import REQUESTS, Program, result

RUN = "--model language:tiny --data mine.jsonl --max-steps 4"
SETTINGS = (
    "save.every=2 log.every=1 train.preview=false save.keep_best=0 engine.threads=1 "
    "train.global_batch=4 optim.layer_decay=0.5"
)
SMALLER = {"smaller micro-batch": {"train.micro_batch": 1}}
"""The change of a rung that depends on the run."""


def changes(*, gpu):
    """Settings as KEY=VALUE, by the last rung: a rung stands on those below, as in `plan`."""
    found, carried = {}, {}
    for rung in RUNGS:
        if rung.effect == TRAINED or (rung.saves == "gpu" and not rung.placement and not gpu):
            continue  # the former are in test_lora and test_nf4
        engines = [e.name for e in ENGINES.values() if e.placement == rung.placement]
        carried = {key: value for key, value in carried.items() if key not in rung.drops}
        carried |= SMALLER.get(rung.name, {}) | rung.change
        carried |= {"engine.name": engines[0]} if engines else {}
        found = {name: change for name, change in found.items() if not change <= carried.items()}
        found[rung.name] = carried.items()
    for name, change in found.items():
        yield pytest.param([f"{key}={plain(value)}" for key, value in change], id=name)


def train_verify_and_resume(folder, change, *more):
    program = Program(folder)
    (folder / "mine.jsonl").write_text(REQUESTS)
    sets = [word for setting in (*SETTINGS.split(), *change) for word in ("--set", setting)]
    resume = "resume x/checkpoints/step-00000002 --engine local --nproc 1 --out y"
    for command in (
        [*RUN.split(), *sets, *more, "--out", "x"],
        ["verify", "x"],
        [*resume.split(), "--set", "optim.state=bf16", "--set", "optim.groups={layers: 0.5}"],
    ):
        done = program(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        if command[0] == "verify":
            assert "bit by bit" in done.stdout and done.stdout.startswith("identical")
    assert [result(folder / name)["steps"] for name in "xy"] == [4, 4]
    assert "optim.groups {} → {layers: 0.5}" in done.stdout
    for name, factor in (("x", 0.5), ("y", 0.25)):
        line = json.loads((folder / name / "metrics.jsonl").read_text().splitlines()[-2])
        assert line["lr.layers.1"] == pytest.approx(factor * line["lr"]) != 0
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",  # the rungs below them have no more than these; a GPU has them all
    [c for c in changes(gpu=False) if c.id in ("optimizer states in int8", "weights offload")],
)
def test_a_rung_trains_is_verified_and_resumes_under_another_engine(change, tmp_path):
    told = train_verify_and_resume(tmp_path, change, "--nproc", "2")
    assert ("optim.state int8 → bf16" in told) == ("optim.state=int8" in change)


@pytest.mark.gpu
@pytest.mark.parametrize("change", changes(gpu=True))
def test_a_rung_of_a_gpu_trains_is_verified_and_resumes(change, tmp_path):
    train_verify_and_resume(tmp_path, change, "--set", "device=cuda", "--nproc", "1")
