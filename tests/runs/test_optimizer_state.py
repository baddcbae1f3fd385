"""Runs with moments of 8 and 16 bits: verified, and resumed with others under another engine."""

import json

import pytest

from tests.runs.conftest import REQUESTS, Program, result

RUN = "--model language:tiny --data mine.jsonl --engine fsdp --nproc 2 --max-steps 4"
SETTINGS = (
    "optim.state=int8 optim.layer_decay=0.5 save.every=2 log.every=1 train.preview=false train.global_batch=4 "
    "train.micro_batch=2 save.keep_best=0 engine.threads=1"
)


@pytest.mark.slow
def test_a_run_in_8_bits_is_verified_and_resumes_in_16_under_another_engine(tmp_path):
    program = Program(tmp_path)
    (tmp_path / "mine.jsonl").write_text(REQUESTS)
    sets = [f"--set={setting}" for setting in SETTINGS.split()]
    resume = "resume x/checkpoints/step-00000002 --engine local --nproc 1 --out y"
    for command in (
        [*RUN.split(), *sets, "--out", "x"],
        ["verify", "x"],
        [*resume.split(), "--set", "optim.state=bf16", "--set", "optim.groups={layers: 0.5}"],
    ):
        done = program(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        if command[0] == "verify":
            assert "bit by bit" in done.stdout and done.stdout.startswith("identical")
    assert "optim.state int8 → bf16" in done.stdout
    assert "optim.groups {} → {layers: 0.5}" in done.stdout
    for name, factor in (("x", 0.5), ("y", 0.25)):
        line = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-2])
        assert line["lr.layers.1"] == pytest.approx(factor * line["lr"]) != 0
    assert [result(tmp_path / name)["steps"] for name in "xy"] == [4, 4]
