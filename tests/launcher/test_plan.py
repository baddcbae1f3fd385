"""The command `plan`: text, JSON, advice to paste, and errors."""

import json
import shlex

import pytest

from launcher.__main__ import main


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_plan_that_does_not_fit_prints_lines_that_do(capsys):
    machine = ["--gpus", "1", "--gpu-memory", "150MiB"]
    assert main(["plan", "--model", "language:small", *machine]) == 0
    text = capsys.readouterr().out
    assert "does not fit: " in text and " of 150.0 MiB" in text
    lines = [line for line in text.splitlines() if line.startswith("  python -m launcher ")]
    assert lines
    words = shlex.split(lines[0].partition("    (")[0])[3:]
    assert main(["plan", *words, *machine, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True


def test_a_line_to_paste_replaces_what_was_typed(capsys):
    replaced = ["--engine", "ddp", "--batch-size=4", "--set", "train.accumulation=2"]
    words = ["--model", "language:tiny", "--lr", "1e-3", "--set", "compile=off", *replaced]
    assert main(["plan", "--gpus=2", *words, "--json"]) == 0
    needs = json.loads(capsys.readouterr().out)["device_peak_bytes"]["total"]
    machine = ["--gpus=2", "--gpu-memory", f"{needs / 2**20:.3f}MiB"]
    assert main(["plan", *machine, *words]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "-m launcher" in line]
    for key in ("train.micro_batch", "engine.name"):
        assert any(f"--set {key}=" in line for line in lines)
    for line in lines:
        pasted = shlex.split(line.partition("    (")[0])[3:]
        assert pasted[:6] == words[:6]
        assert main(["plan", *machine, *pasted, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["fits"] is True


def test_json_has_the_documented_keys(capsys):
    assert main(["plan", "--model", "language:tiny", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    peak = found["device_peak_bytes"]
    assert peak["total"] == sum(n for kind, n in peak.items() if kind != "total")
    documented = {"host_peak_bytes", "bytes_per_step", "checkpoint_bytes", "parameters"}
    assert documented | {"flops_per_step", "fits", "advice"} <= found.keys()
    assert found["fits"] is True and found["advice"] == []


def test_errors_of_options_machine_and_stages_come_together_with_the_fix(capsys):
    wrong = ["--gpu-memory", "24", "--nodes", "0", "--lr", "much"]
    assert main(["plan", "--model", "language:tiny", "--mode", "staged", *wrong]) == 2
    errors = capsys.readouterr().err
    assert "--gpu-memory 24GiB" in errors and "--nodes 0 is not a count" in errors
    assert errors.count("optim.lr") == 1


def test_stages_are_planned_one_after_the_other(capsys):
    staged = ["plan", "--model", "language:tiny", "--mode", "staged"]
    assert main(staged) == 0
    text = capsys.readouterr().out
    first, second = text.index("stage 1 of 2: text"), text.index("stage 2 of 2: dialogues")
    assert first < second and text.count("peak of a rank") == 2
    assert main([*staged, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["text", "dialogues"]
    text, dialogues = found.values()
    assert text["trainable_parameters"] == text["parameters"] == dialogues["parameters"]
    assert dialogues["trainable_parameters"] < dialogues["parameters"]
    assert main([*staged, "--stage", "dialogues", "--json"]) == 0  # without weights to start from
    alone = json.loads(capsys.readouterr().out)
    assert alone["trainable_parameters"] == dialogues["trainable_parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["abr", "event_seg", "doc_translation", "eeg_text"])
def test_stages_of_other_families(family, capsys):
    assert main(["plan", "--model", f"{family}:tiny", "--mode", "staged", "--json"]) == 0
    first, *_, last = json.loads(capsys.readouterr().out).values()
    assert first["trainable_parameters"] == first["parameters"]
    assert last["trainable_parameters"] < last["parameters"]  # the encoder is frozen


def test_a_named_gpu_gives_memory_and_time(capsys):
    assert main(["plan", "--model", "language:tiny", "--gpu", "T4"]) == 0
    text = capsys.readouterr().out
    assert "of 16.0 GiB" in text and "in fp16" not in text
    assert "at least " in text and "(data sheet of T4, " in text


def test_measuring_another_machine_or_several_runs_is_an_error(capsys):
    assert main(["plan", "--measure", "--gpu", "T4", "--mode", "staged"]) == 2
    errors = capsys.readouterr().err
    assert "--gpu T4 describes another one" in errors and "one per stage" in errors


@pytest.mark.slow
def test_three_measured_steps_give_the_time_of_the_run(capsys):
    run = ["plan", "--model", "language:tiny", "--max-steps", "40", "--track", "tensorboard"]
    assert main([*run, "--measure", "--json"]) == 0
    seconds = json.loads(capsys.readouterr().out)["seconds"]
    assert seconds["basis"] == "measured here: 3 steps" and not seconds["is_least"]
    assert 0 < 40 * seconds["step"] < seconds["run"] < seconds["epoch"]
