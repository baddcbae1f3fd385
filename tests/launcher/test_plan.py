"""The command `plan`: text, JSON, advice to paste, and errors."""

import pytest

from gearshift.launcher.config.machine import CONTEXT_BYTES


@pytest.fixture(autouse=True)
def stays_empty(here):
    yield
    assert not list(here.iterdir())


@pytest.mark.slow
def test_the_ladder_is_in_json_with_the_rung_to_take(said):
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


def test_errors_of_options_machine_and_stages_come_together_with_the_fix(said):
    wrong = ["--gpu-memory", "24", "--nodes", "0", "--lr", "much"]
    errors = said("plan", "--model", "language:tiny", "--mode", "staged", *wrong, code=2)
    assert "--gpu-memory 24GiB" in errors and "--nodes '0' is invalid" in errors
    assert errors.count("optim.lr") == 1


@pytest.mark.slow
def test_stages_are_planned_one_after_the_other(said):
    staged = ["plan", "--model", "language:small", "--mode", "staged"]
    found = said(*staged, "--json")
    assert list(found) == ["lower", "upper"]
    lower, upper = found.values()
    assert lower["parameters"] == upper["parameters"]
    assert upper["trainable_parameters"] < lower["trainable_parameters"] < lower["parameters"]
    alone = said(*staged, "--stage", "upper", "--json")  # without weights to start from
    assert alone["trainable_parameters"] == upper["trainable_parameters"]
