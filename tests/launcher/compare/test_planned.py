"""Promises of a GPU where there is none are decided by plans, each candidate's once."""

import json
import subprocess

import pytest

from gearshift.launcher.__main__ import read
from gearshift.launcher.compare.candidates import decide
from gearshift.launcher.compare.promises import CARD, check
from gearshift.launcher.compare.runner import plan_peaks
from tests.launcher.compare.test_promises import row


@pytest.fixture
def peaks(monkeypatch, tmp_path):
    """The planned peaks of modes whose plans have these answers; and the commands that asked."""
    monkeypatch.chdir(tmp_path)

    def peaks(answers, *more):
        commands = []

        def ran(command, **options):
            commands.append(command)
            answer = answers[command[command.index("--mode") + 1]]
            return subprocess.CompletedProcess(
                command, 2 * (answer is None), json.dumps(answer), ""
            )

        monkeypatch.setattr(subprocess, "run", ran)
        modes = ",".join([*answers][1:])
        line = ["compare", "--model", "eeg_text:tiny", "--steps", "2", "--modes", modes, *more]
        return plan_peaks(decide(read(line))), commands

    return peaks


def plan_of(peak):
    return {"engine": "local", "device_peak_bytes": {"total": peak}}


def test_each_candidate_is_planned_once(peaks):
    answers = {"default": plan_of(30 * 2**30), "resource-efficient": plan_of(3 * 2**30)}
    found, commands = peaks({**answers, "benchmark": None})  # benchmark promises nothing of a GPU
    assert [f"--gpu={CARD}" in command for command in commands] == [True] * 2
    assert "stop.after=2" not in commands[0]
    assert found == {
        "default local": {None: 30 * 2**30},
        "resource-efficient local": {None: 3 * 2**30},
    }


def test_staged_training_takes_the_largest_stage_and_a_plan_that_fails_leaves_it_open(peaks):
    staged = {"encoder": plan_of(3), "text": plan_of(4)}
    promise = ("--set", "promise={device_peak: {at_most: 0.5}}")
    found, commands = peaks({"default": plan_of(9), "staged": staged}, *promise)
    assert found["staged local"] == {None: 4, "encoder": 3, "text": 4} and len(commands) == 2
    assert peaks({"default": None, "staged": staged}, *promise)[0]["default local"] == {}


@pytest.mark.parametrize(("peak", "kept"), [(4, True), (6, False)])
def test_a_planned_promise_is_marked(peak, kept):
    (result,) = check({"device_peak": {"at_most": 0.5}}, row(), row(), planned=(peak, 10))
    assert (result.kept, result.planned, result.measured) == (kept, True, peak / 10)
