"""The command `plan`: text, JSON, advice to paste, and errors."""

import shlex

import pytest

from launcher.config.machine import CONTEXT_BYTES, NCCL_BYTES


@pytest.fixture(autouse=True)
def stays_empty(here):
    yield
    assert not list(here.iterdir())


@pytest.mark.slow
def test_a_plan_that_does_not_fit_prints_lines_that_do(said):
    machine = ["--gpus", "1", "--gpu-memory", f"{150 + CONTEXT_BYTES // 2**20}MiB"]
    text = said("plan", "--model", "language:small", *machine)
    assert "does not fit: " in text and " of 150.0 MiB" in text
    lines = [line for line in text.splitlines() if line.startswith("  python -m launcher ")]
    assert lines
    words = shlex.split(lines[0].partition("    (")[0])[3:]
    assert said("plan", *words, *machine, "--json")["fits"] is True


def test_a_line_to_paste_replaces_what_was_typed(said):
    replaced = ["--engine", "ddp", "--batch-size=4", "--set", "train.accumulation=2"]
    words = [
        "--model",
        "language:tiny",
        "--lr",
        "1e-3",
        "--set",
        "compile=off",
        "--set",
        "memory.activation_checkpointing=full",
        *replaced,
    ]
    needs = said("plan", "--gpus=2", *words, "--json")["device_peak_bytes"]["total"]
    memory = 0.94 * needs + CONTEXT_BYTES + NCCL_BYTES
    machine = ["--gpus=2", "--gpu-memory", f"{memory / 2**20:.3f}MiB"]
    lines = said("plan", *machine, *words).splitlines()
    lines = [line for line in lines if "-m launcher" in line]
    (line,) = lines
    assert "--set train.micro_batch=" in line and "--batch-size" not in line
    pasted = shlex.split(line.partition("    (")[0])[3:]
    assert pasted[:8] == words[:8]
    assert said("plan", *machine, *pasted, "--json")["fits"] is True


def test_the_ladder_is_printed_and_in_json_with_the_rung_to_take(said):
    needs = said("plan", "--model", "language:tiny", "--gpus=1", "--json")
    memory = 0.5 * needs["device_peak_bytes"]["total"] + CONTEXT_BYTES
    words = ["--model", "language:tiny", "--gpus=1", f"--gpu-memory={memory / 2**20:.3f}MiB"]
    found = said("plan", *words, "--json")
    names = [rung["name"] for rung in found["rungs"]]
    assert names[:2] == ["smaller micro-batch", "activation checkpointing"]
    (take,) = (rung for rung in found["rungs"] if rung["take"])
    assert found["advice"] == [take] and take["fits"] is True and take["effect"] == ""
    assert take["device_peak_bytes"]["total"] <= memory - CONTEXT_BYTES
    assert take["relative_time"] > 1 and any(
        "train.micro_batch=" in text for text in found["rungs"][0]["set"]
    )
    lines = said("plan", *words).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("  ladder"))
    rows = lines[start + 1 : start + 1 + len(names)]
    assert [row[2:27].strip() for row in rows] == names
    assert [row[0] for row in rows] == [">" if rung["take"] else " " for rung in found["rungs"]]
    assert all(
        ("fits" in row) == rung["fits"] for row, rung in zip(rows, found["rungs"], strict=True)
    )


def test_json_has_the_documented_keys(said):
    found = said("plan", "--model", "language:tiny", "--json")
    peak = found["device_peak_bytes"]
    assert peak["total"] == sum(n for kind, n in peak.items() if kind != "total")
    documented = {"host_peak_bytes", "bytes_per_step", "checkpoint_bytes", "parameters"}
    assert documented | {"flops_per_step", "fits", "advice"} <= found.keys()
    assert found["fits"] is True and found["advice"] == []


def test_errors_of_options_machine_and_stages_come_together_with_the_fix(said):
    wrong = ["--gpu-memory", "24", "--nodes", "0", "--lr", "much"]
    errors = said("plan", "--model", "language:tiny", "--mode", "staged", *wrong, code=2)
    assert "--gpu-memory 24GiB" in errors and "--nodes 0 is not a count" in errors
    assert errors.count("optim.lr") == 1


def test_stages_are_planned_one_after_the_other(said):
    staged = ["plan", "--model", "language:small", "--mode", "staged"]
    text = said(*staged)
    first, second = text.index("stage 1 of 2: text"), text.index("stage 2 of 2: dialogues")
    assert first < second and text.count("peak of a rank") == 2
    found = said(*staged, "--json")
    assert list(found) == ["text", "dialogues"]
    text, dialogues = found.values()
    assert text["trainable_parameters"] == text["parameters"] == dialogues["parameters"]
    assert dialogues["trainable_parameters"] < dialogues["parameters"]
    alone = said(*staged, "--stage", "dialogues", "--json")  # without weights to start from
    assert alone["trainable_parameters"] == dialogues["trainable_parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["abr", "eeg_text"])
def test_stages_of_other_families(family, said):
    found = said("plan", "--model", f"{family}:tiny", "--mode", "staged", "--json")
    first, *_, last = found.values()
    assert first["trainable_parameters"] == first["parameters"] < last["parameters"]
    is_frozen = last["trainable_parameters"] < 0.9 * last["parameters"]
    assert is_frozen == (family == "eeg_text")


def test_a_named_gpu_gives_memory_and_time(said):
    text = said("plan", "--model", "language:tiny", "--gpu", "T4")
    assert "of 15.5 GiB" in text and "in fp16" not in text
    assert "at least " in text and "(data sheet of T4, " in text
