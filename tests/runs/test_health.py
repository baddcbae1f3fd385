"""Real runs with a fault are told what it is and what to type; healthy runs are told nothing."""

import json
import re

import pytest

from launcher.__main__ import main
from launcher.run.faults import FAULTS
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write

pytestmark = pytest.mark.usefixtures("one_thread")

EACH = ("--set", "log.every=1", "--set", "schedule.name=constant", "--set", "save.last=false")
NO_CHECKPOINT = ("--set", "save.keep_best=0")
MEMORIZE = """\
class Line(CustomTask):
    defaults = {"train": {"micro_batch": 16}}

    def samples(self, split):
        drawn = torch.Generator().manual_seed(len(split))
        inputs = torch.randn(16, 8, generator=drawn)
        return list(zip(inputs, torch.randn(16, generator=drawn)))

    def build(self):
        return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1))

    def measure(self, model, batch):
        error = model(batch["input"]).squeeze(1) - batch["target"]
        return {"loss": error.square().sum()}
"""
"""Labels without a rule, different ones for validation."""
SLOW = BODY.replace("return [", "return Slow([").replace("range(8)]", "range(8)])")
SLOW_HEAD = """\
import hashlib

class Slow(list):
    def __getitem__(self, index):
        hashlib.pbkdf2_hmac("sha256", b"", b"", 400_000)  # a quarter of a second
        return super().__getitem__(index)

"""


@pytest.fixture
def train(tmp_path, monkeypatch, capfd):
    """Trains a custom task or a family in a folder of its own; its exit code, output, advice."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(model, *args):
        code = main(["--model", model, "--out", "run", *args])
        out, err = capfd.readouterr()
        return code, out, err, advice(tmp_path / "run")

    return run


def advice(folder):
    if not (folder / "events.jsonl").exists():
        return []
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [event["facts"] for event in events if event["kind"] == "advice"]


def check_advice(found, out, name):
    (facts,) = found
    assert facts["fault"] == name
    assert facts["cause"] == FAULTS[name].cause
    line = f"advice     {facts['seen']}: {facts['cause']}; fix:  {facts['fix']}"
    lines = out.splitlines()
    assert lines.count(line) == 2  # when it is found, and at the end
    assert line in lines[-3:]


def check_error(found, err, name):
    (facts,) = found
    fault = FAULTS[name]
    lines = err.strip().splitlines()
    assert facts["fault"] == name
    assert lines[-3] == f"error: {facts['seen']}"
    assert lines[-2:] == [f"  cause         {fault.cause}", f"  fix           {facts['fix']}"]


PLAIN = HEAD + LINE + BODY
NOT_A_NUMBER = HEAD + LINE + BODY.replace("float(i % 2)", 'float("nan")')


@pytest.mark.parametrize(
    ("source", "args", "fix"),
    [
        pytest.param(NOT_A_NUMBER, "", "--precision fp32 --debug", id="nonfinite_first"),
        pytest.param(PLAIN, "--lr 1e25 --epochs 20", "--lr 1e+24", id="nonfinite_later"),
    ],
)
def test_a_loss_that_is_not_finite_ends_the_run(train, tmp_path, request, source, args, fix):
    code, _, err, found = train(write(tmp_path, source) + ":Line", *EACH, *args.split())
    assert code == 1 and fix in err
    check_error(found, err, request.node.callspec.id)


@pytest.mark.parametrize(
    ("source", "args"),
    [
        pytest.param(PLAIN, "--lr 1e-12 --epochs 60", id="not_falling"),
        pytest.param(PLAIN, "--lr 100 --epochs 20", id="lr_too_high"),
        pytest.param(HEAD + MEMORIZE, "--lr 0.01 --epochs 80 --set eval.every=5", id="overfitting"),
        pytest.param(
            SLOW_HEAD + HEAD + LINE + SLOW,
            "--num-workers 0 --epochs 8 --set eval.every=null",
            id="starved",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_that_learns_badly_or_waits_for_data_has_advice(train, tmp_path, request, source, args):
    task = write(tmp_path, source) + ":Line"
    code, out, _, found = train(task, *EACH, *NO_CHECKPOINT, *args.split())
    assert code == 0
    check_advice(found, out, request.node.callspec.id)


def test_a_full_disk(train, tmp_path, disk):
    folder = disk("size=256k")
    none = ("--set", "eval.every=null", "--set", "train.preview=false")
    args = (*EACH, *NO_CHECKPOINT, *none, "--epochs", "1000")
    code, _, err, _ = train(write(tmp_path, PLAIN) + ":Line", *args, "--out", str(folder / "run"))
    assert code == 1
    fault = FAULTS["disk_full"]
    first, cause, fix = err.strip().splitlines()[-3:]
    assert re.match(r"error: cannot write .*: No space left on device", first)
    assert cause == f"  cause         {fault.cause}"
    assert fix.startswith("  fix           free some space, then  python -m launcher --config ")


@pytest.mark.slow
def test_a_healthy_run_is_told_nothing(train):
    """Of other families: test_learning.py."""
    code, out, _, found = train("event_seg:tiny", "--mode", "fast")
    assert (code, found) == (0, []) and "advice" not in out
