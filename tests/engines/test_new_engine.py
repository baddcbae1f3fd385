"""A new engine is one file and one line of the catalog: it trains, plans, and crosses."""

import json

import pytest

from tests import extended

LINE = """
from gearshift.engines import catalog
catalog.ENGINES["steady"] = catalog.Entry("steady", "one by one", "tests.engines.steady", "steady")
"""
RUN = ["--model", "language:tiny", "--nproc", "2", "--set", "eval.last=false"]
RUN += ["--set", "train.preview=false", "--set", "log.every=1"]


@pytest.fixture
def launch(tmp_path):
    """A command of a program whose catalog has one more line, in each of its processes."""
    return extended.command(tmp_path, LINE)


def losses(run):
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.slow
def test_a_new_engine_trains_plans_is_offered_and_crosses(launch, tmp_path):
    launch(*RUN, "--engine", "ddp", "--max-steps", "4", "--out", "whole")
    launch(*RUN, "--engine", "steady", "--max-steps", "4", "--set", "save.every=2", "--out", "mine")
    assert losses(tmp_path / "mine") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    plan = json.loads(launch("plan", *RUN, "--engine", "steady", "--json"))
    assert (plan["engine"], plan["fits"]) == ("steady", True)
    launch("resume", "mine/checkpoints/step-00000002", "--engine", "fsdp", "--out", "crossed")
    assert losses(tmp_path / "crossed") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
