"""Promises of a GPU where there is none are decided by plans, each candidate's once."""

import json
import subprocess
from dataclasses import replace

import pytest

from launcher.cli.parser import read
from launcher.compare import runner
from launcher.compare.candidates import decide
from launcher.compare.promises import PlannedMemory


@pytest.fixture
def plans(monkeypatch, tmp_path):
    """Answers for `plan`, by mode, and the commands that asked."""
    monkeypatch.chdir(tmp_path)
    commands, answers = [], {}

    def ran(command, **options):
        commands.append(command)
        mode = next(part for part in command if part.startswith("--mode="))[7:]
        answer = answers[mode]
        code = 2 if "diagnostics" in answer else 0
        return subprocess.CompletedProcess(command, code, json.dumps(answer), "")

    monkeypatch.setattr(subprocess, "run", ran)
    return commands, answers


def plan_of(peak):
    return {"engine": "local", "device_peak_bytes": {"total": peak}}


def peaks(modes, *more):
    line = ["compare", "--model", "eeg_text:tiny", "--steps", "2", "--modes", modes, *more]
    return runner.plan(decide(read(line)), lambda line: None)


def test_each_candidate_is_planned_once_on_the_card_that_mode_default_fits(plans):
    commands, answers = plans
    answers |= {"default": plan_of(30 * 2**30), "resource-efficient": plan_of(3 * 2**30)}
    found = peaks("resource-efficient,benchmark")  # benchmark promises nothing of a GPU
    assert [command[-2] for command in commands] == ["--gpu=L4", *["--gpu=A100 80GB PCIe"] * 2]
    assert "--set=stop.after=2" not in commands[0]
    memory = PlannedMemory("planned on A100 80GB PCIe", 3 * 2**30, 30 * 2**30)
    assert found == {("resource-efficient", "local", None): memory}


def test_staged_training_takes_the_largest_stage(plans):
    _, answers = plans
    answers |= {"default": plan_of(9), "staged": {"encoder": plan_of(3), "text": plan_of(4)}}
    promise = "promise={device_peak: {at_most: 0.5}}"
    found = peaks("staged", "--set", promise)
    stages = {stage: memory.of_row for (mode, _, stage), memory in found.items()}
    assert stages == {None: 4, "encoder": 3, "text": 4}


def test_a_plan_that_fails_leaves_the_promise_open_and_says_why(plans):
    _, answers = plans
    error = {"diagnostics": [{"message": "no such data"}]}
    for base, mode in ((plan_of(9), error), (error, plan_of(9))):
        answers |= {"default": base, "resource-efficient": mode}
        memory = peaks("resource-efficient")["resource-efficient", "local", None]
        assert memory.why.endswith(": no such data")


def test_a_comparison_without_promises_of_a_gpu_needs_no_plan(plans):
    candidates = decide(
        read(["compare", "--model", "abr:tiny", "--modes", "benchmark", "--steps", "2"])
    ).candidates
    assert not any(item.is_open for item in candidates)
    gpu = replace(candidates[0].resolved, device="cuda", promises={"device_peak": {}})
    assert not replace(candidates[0], resolved=gpu).is_open
