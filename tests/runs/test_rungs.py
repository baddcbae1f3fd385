"""The last rungs of the ladder train, are verified, and resume under another engine."""

import json

import pytest

from tests.runs.conftest import REQUESTS, result

RUN = "--model language:tiny --data mine.jsonl --max-steps 4 --nproc 2"
SETTINGS = "save.every=2 log.every=1 train.preview=false save.keep_best=0 engine.threads=1 "
SETTINGS += "train.global_batch=4 optim.layer_decay=0.5 train.micro_batch=1 loader.workers=0 "
SETTINGS += "memory.activation_checkpointing=full memory.return_freed=true "
SETTINGS += "engine.name=fsdp optim.state=int8"
RESUME = (
    "resume x/checkpoints/step-00000002 --engine local --nproc 1 --out y --set optim.state=bf16"
)


@pytest.mark.slow
def test_a_rung_trains_is_verified_and_resumes_under_another_engine(program):
    (program.folder / "mine.jsonl").write_text(REQUESTS)
    sets = [word for setting in SETTINGS.split() for word in ("--set", setting)]
    for command in (
        [*RUN.split(), *sets, "--out", "x"],
        ["verify", "x"],
        [*RESUME.split(), "--set", "optim.groups={layers: 0.5}"],
    ):
        done = program(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        if command[0] == "verify":
            assert "bit by bit" in done.stdout and done.stdout.startswith("identical")
    assert [result(program.folder / name)["steps"] for name in "xy"] == [4, 4]
    assert "optim.groups {} → {layers: 0.5}" in done.stdout
    assert "optim.state int8 → bf16" in done.stdout
    for name, factor in (("x", 0.5), ("y", 0.25)):
        line = json.loads((program.folder / name / "metrics.jsonl").read_text().splitlines()[-2])
        assert line["lr.layers.1"] == pytest.approx(factor * line["lr"]) != 0
