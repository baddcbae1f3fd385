"""Continual learning end to end: new files, kills between and within experiences, signals."""

import json
import os
import random
import shutil
import signal
import subprocess

import psutil
import pytest

from gearshift.launcher.saved_runs import differences
from gearshift.training.checkpoint import reader
from tests.runs.conftest import Program
from tests.waiting import until

FIRST, EXPERIENCE = 4, 60
"""Steps of the first data, and of an experience."""
PACE = (
    *("--set", "continual.settle_s=0.2", "--set", "continual.check_every_s=0.1"),
    *("--set", f"continual.max_steps={EXPERIENCE}", "--set", "continual.epochs=100"),
)
ARGUMENTS = (
    *("--model", "language:tiny", "--data", "texts", "--out", "run", "--continuous-learning"),
    *("--max-steps", str(FIRST), "--lr", "1e-3", "--seq-len", "32"),
    *("--set", "train.global_batch=4"),
    *("--set", "log.every=1", "--set", "save.every=8", "--set", "eval.every=30", *PACE),
)


def write(folder, names, vocabulary, letter):
    draws = random.Random(names.start)
    for number in names:
        text = " ".join(draws.choice(vocabulary.split()) for _ in range(200))
        (folder / f"{letter}{number}.txt").write_text(text)


def start(folder, *arguments):
    return Program(folder).start(*arguments, stdout=subprocess.DEVNULL)


def kill(process):
    """Kill a process and its ranks."""
    ranks = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for rank in ranks:
        rank.kill()
        rank.wait()


def lines(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def kinds(run):
    return [line["kind"] for line in lines(run / "events.jsonl")]


@pytest.fixture(scope="module")
def waiting_run(tmp_path_factory):
    """A folder with a run that was killed while it waited, and new files."""
    folder = tmp_path_factory.mktemp("continual")
    texts = folder / "texts"
    texts.mkdir()
    write(texts, range(12), "alpha beta gamma delta", "a")
    process = start(folder, *ARGUMENTS)
    try:
        until(lambda: "waiting_for_data" in kinds(folder / "run"), process)
    finally:
        kill(process)
    write(texts, range(6), "eins zwei drei vier", "b")
    (texts / "bad.txt").write_bytes(b"\xff\xfe\x00broken\x00\xff" * 9)
    (texts / "c.txt.part").write_text("half a fi")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(waiting_run):
    """The experience without interruption, until quiet_s."""
    shutil.copytree(waiting_run / "run", waiting_run / "whole", symlinks=True)
    done = Program(waiting_run)("resume", "whole", "--set", "continual.quiet_s=1")
    assert done.returncode == 0, done.stderr
    return done


def last(run):
    return reader.open_checkpoint((run / "last").resolve())


@pytest.mark.slow
def test_new_files_are_trained_on_with_a_lower_peak_and_forgetting_is_reported(
    uninterrupted, waiting_run
):
    run = waiting_run / "whole"
    ledger = json.loads((run / "experiences.json").read_text())["experiences"]
    assert [entry["state"] for entry in ledger] == ["trained", "trained"]
    assert sorted(ledger[1]["files"]) == [*(f"b{n}.txt" for n in range(6)), "bad.txt"]
    assert (ledger[1]["start_step"], ledger[1]["end_step"]) == (FIRST, FIRST + EXPERIENCE)
    recorded = {line["kind"]: line["facts"] for line in lines(run / "events.jsonl")}
    forgetting = recorded["experience_trained"]
    assert forgetting["new"]["after"]["val_loss"] < forgetting["new"]["before"]["val_loss"]
    assert "1 trained: val_loss on old data" in uninterrupted.stdout
    found = [line for line in lines(run / "metrics.jsonl") if line["kind"] == "eval"]
    splits = [line["split"] for line in found if line["step"] == FIRST + EXPERIENCE]
    assert splits == ["val_old", "val_new", "val"]
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["experiences"][0]["old"] == forgetting["old"]
    assert "no new files for 1 s" in uninterrupted.stdout
    rates = [line["lr"] for line in lines(run / "metrics.jsonl") if line["kind"] == "train"]
    assert max(rates[FIRST:]) == pytest.approx(0.3 * 1e-3)


@pytest.mark.slow
def test_a_killed_experience_resumes_to_the_same_weights(uninterrupted, waiting_run):
    shutil.copytree(waiting_run / "run", waiting_run / "killed", symlinks=True)
    arguments = ("resume", "killed", "--set", "continual.quiet_s=1")
    process = start(waiting_run, *arguments)
    metrics = waiting_run / "killed/metrics.jsonl"
    try:
        until(lambda: any(line["step"] >= FIRST + 12 for line in lines(metrics)), process)
    finally:
        kill(process)
    ledger = json.loads((waiting_run / "killed/experiences.json").read_text())["experiences"]
    assert ledger[1]["state"] == "training"
    again = start(waiting_run, *arguments)
    assert again.wait() == 0, again.communicate()
    first, second = (last(waiting_run / name) for name in ("whole", "killed"))
    assert first.manifest.step == second.manifest.step == FIRST + EXPERIENCE
    assert differences.compare(first, second, None).first is None
    resumed, whole = (
        [(line["step"], line["kind"], line.get("split")) for line in lines(path)]
        for path in (metrics, waiting_run / "whole/metrics.jsonl")
    )
    assert resumed == whole


@pytest.mark.slow
def test_verify_replays_an_experience_bit_by_bit(uninterrupted, waiting_run):
    done = Program(waiting_run)("verify", "whole")
    assert done.stdout.startswith("identical"), done.stdout + done.stderr


@pytest.mark.slow
def test_a_signal_ends_the_wait(waiting_run):
    name = "signalled"
    shutil.copytree(waiting_run / "run", waiting_run / name, symlinks=True)
    for entry in (waiting_run / "texts").iterdir():
        os.utime(entry)  # other times, the same content: nothing new
    arguments = ("resume", name, "--set", "continual.min_files=100")
    process = start(waiting_run, *arguments)
    before = kinds(waiting_run / name).count("waiting_for_data")
    until(lambda: kinds(waiting_run / name).count("waiting_for_data") > before, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert json.loads((waiting_run / name / "result.json").read_text())["status"] == "stopped"
