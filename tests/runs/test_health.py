"""Real runs with a fault are told what it is and what to type; healthy runs are told nothing."""

import json
import shlex
import sys

import pytest

from gearshift.launcher.__main__ import main
from gearshift.launcher.run.faults import FAULTS
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
COMPARED = """
    def baselines(self, train, held_out):
        from gearshift.models.base import Baseline
        assert sum(map(self.num_units, held_out)) == len(self.data("val"))
        return [Baseline("a guess", {"val_loss": 9.75}), Baseline("a rule", {"val_loss": 1e-30})]
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
    (facts,) = found
    assert facts["fault"] == request.node.callspec.id and facts["seen"] in err
    assert facts["fix"][0] == sys.executable and shlex.join(facts["fix"][1:]) in err


@pytest.mark.parametrize(
    ("source", "args"),
    [
        pytest.param(PLAIN, "--lr 1e-12 --epochs 60", id="not_falling"),
        pytest.param(PLAIN, "--lr 100 --epochs 20", id="lr_too_high"),
        pytest.param(HEAD + MEMORIZE, "--lr 0.01 --epochs 80 --set eval.every=5", id="overfitting"),
        pytest.param(PLAIN + COMPARED, "--epochs 60", id="below_baseline"),
    ],
)
def test_a_run_that_learns_badly_has_advice(train, tmp_path, request, source, args):
    task = write(tmp_path, source) + ":Line"
    code, out, _, found = train(task, *EACH, *NO_CHECKPOINT, *args.split())
    assert code == 0
    (facts,) = found
    assert (
        facts["fault"] == request.node.callspec.id
        and FAULTS[facts["fault"]].cause == facts["cause"]
    )
    line = (
        f"advice     {facts['seen']}: {facts['cause']}; fix:  python {shlex.join(facts['fix'][1:])}"
    )
    assert out.splitlines().count(line) == 2  # when it is found, and at the end


def test_a_baseline_stands_beside_the_best_value(train, tmp_path):
    _, out, _, _ = train(write(tmp_path, PLAIN + COMPARED) + ":Line", *EACH)
    result = json.loads((tmp_path / "run" / "result.json").read_bytes())
    assert result["best"]["baseline"] == {"name": "a rule", "value": 1e-30}
    assert [method["name"] for method in result["baselines"]] == ["a rule", "a guess"]
    [best] = [line for line in out.splitlines() if line.startswith("best ")]
    assert best.endswith("baseline 1.00e-30: a rule")
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert all(name in report for name in ("a guess", "9.7500", "baseline 1.00e-30: a rule"))


def test_a_full_disk(train, tmp_path, disk):
    folder = disk("size=256k")
    none = ("--set", "eval.every=null", "--set", "train.preview=false")
    args = (*EACH, *NO_CHECKPOINT, *none, "--epochs", "1000")
    code, _, err, _ = train(write(tmp_path, PLAIN) + ":Line", *args, "--out", str(folder / "run"))
    assert code == 1
    assert "No space left on device" in err and FAULTS["disk_full"].cause in err
