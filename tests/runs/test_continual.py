"""A run that learns on: new files, a kill between experiences and inside one, and its ends."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.runs.conftest import environment
from training.checkpoint import compare, reader

FIRST, EXPERIENCE = 4, 60
"""Steps of the first data, and of an experience."""
PACE = (
    *("--set", "continual.settle_s=0.2", "--set", "continual.check_every_s=0.1"),
    *("--set", f"continual.max_steps={EXPERIENCE}", "--set", "continual.epochs=100"),
)
WORDS = (
    *("--model", "language:tiny", "--data", "texts", "--out", "run", "--continuous-learning"),
    *(
        "--max-steps",
        str(FIRST),
        "--lr",
        "1e-3",
        "--set",
        "train.global_batch=4",
        "--seq-len",
        "32",
    ),
    *("--set", "log.every=1", "--set", "save.every=8", "--set", "eval.every=30", *PACE),
)


def write(folder: Path, names: range, words: str, letter: str) -> None:
    draws = random.Random(names.start)
    for number in names:
        text = " ".join(draws.choice(words.split()) for _ in range(200))
        (folder / f"{letter}{number}.txt").write_text(text)


def begin(folder: Path, *words: str) -> psutil.Popen:
    return psutil.Popen(
        [sys.executable, "-m", "launcher", *words],
        cwd=folder,
        env=environment() | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill(process: psutil.Popen) -> None:
    """End it and its ranks as a power cut would, though not at one moment."""
    for one in [process, *process.children(recursive=True)]:
        one.kill()
        one.wait()


def until(happened, process: psutil.Popen) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def lines(path: Path) -> list[dict]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def kinds(run: Path) -> list[str]:
    return [line["kind"] for line in lines(run / "events.jsonl")]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A folder with a run that was killed while it waited, and new files that came since."""
    folder = tmp_path_factory.mktemp("continual")
    texts = folder / "texts"
    texts.mkdir()
    write(texts, range(12), "alpha beta gamma delta", "a")
    process = begin(folder, *WORDS)
    try:
        until(lambda: "waiting_for_data" in kinds(folder / "run"), process)
    finally:
        kill(process)
    write(texts, range(6), "eins zwei drei vier", "b")
    (texts / "bad.txt").write_bytes(b"\xff\xfe\x00broken\x00\xff" * 9)
    (texts / "c.txt.part").write_text("half a fi")
    return folder


@pytest.fixture(scope="module")
def undisturbed(learnt):
    """The experience in one go, until it is quiet."""
    shutil.copytree(learnt / "run", learnt / "whole", symlinks=True)
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "resume", "whole", "--set", "continual.quiet_s=1"],
        cwd=learnt,
        env=environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


def last(run: Path):
    return reader.open_checkpoint((run / "last").resolve())


@pytest.mark.slow
def test_new_files_are_learnt_and_what_it_cost_the_old_is_told(undisturbed, learnt):
    run = learnt / "whole"
    book = json.loads((run / "experiences.json").read_text())["experiences"]
    assert [one["state"] for one in book] == ["learnt", "learnt"]
    assert sorted(book[1]["files"]) == [
        "b0.txt",
        "b1.txt",
        "b2.txt",
        "b3.txt",
        "b4.txt",
        "b5.txt",
        "bad.txt",
    ]
    assert (book[1]["begun_at"], book[1]["ended_at"]) == (FIRST, FIRST + EXPERIENCE)
    told = next(
        line["facts"]
        for line in lines(run / "events.jsonl")
        if line["kind"] == "experience_trained"
    )
    assert told["new"]["after"]["val_loss"] < told["new"]["before"]["val_loss"]
    assert "experience     1 learnt: val_loss on old data" in undisturbed.stdout
    found = [line for line in lines(run / "metrics.jsonl") if line["kind"] == "eval"]
    assert [line["split"] for line in found if line["step"] == FIRST + EXPERIENCE] == [
        "val_old",
        "val_new",
        "val",
    ]
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["experiences"][0]["old"] == told["old"]
    assert "no new file came for 1 s" in undisturbed.stdout


@pytest.mark.slow
def test_an_experience_warms_up_to_its_own_lower_peak_and_comes_down(undisturbed, learnt):
    found = [one for one in lines(learnt / "whole/metrics.jsonl") if one["kind"] == "train"]
    rates = [line["lr"] for line in found if line["step"] > FIRST]
    peak = 0.3 * 1e-3
    assert max(rates) == pytest.approx(peak)
    assert rates[0] < rates[1] < rates[2]
    assert rates[-1] < 0.05 * peak


@pytest.mark.slow
def test_a_kill_inside_an_experience_changes_nothing_of_what_it_comes_to(undisturbed, learnt):
    shutil.copytree(learnt / "run", learnt / "killed", symlinks=True)
    words = ("resume", "killed", "--set", "continual.quiet_s=1")
    process = begin(learnt, *words)
    metrics = learnt / "killed/metrics.jsonl"
    try:
        until(lambda: any(line["step"] >= FIRST + 12 for line in lines(metrics)), process)
    finally:
        kill(process)
    assert (
        json.loads((learnt / "killed/experiences.json").read_text())["experiences"][1]["state"]
        == "training"
    )
    again = begin(learnt, *words)
    assert again.wait(120) == 0, again.communicate()
    first, second = (last(learnt / name) for name in ("whole", "killed"))
    assert first.manifest.step == second.manifest.step == FIRST + EXPERIENCE
    assert compare.compare(first, second, None).first is None
    steps = [(line["step"], line["kind"], line.get("split")) for line in lines(metrics)]
    assert steps == [
        (line["step"], line["kind"], line.get("split"))
        for line in lines(learnt / "whole/metrics.jsonl")
    ]


@pytest.mark.slow
def test_an_experience_can_be_taken_again_bit_by_bit(undisturbed, learnt):
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "verify", "whole"],
        cwd=learnt,
        env=environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith("identical"), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_wait(learnt, number, code):
    name = f"signalled-{code}"
    shutil.copytree(learnt / "run", learnt / name, symlinks=True)
    for entry in (learnt / "texts").iterdir():
        os.utime(entry)  # other times, the same content: nothing new
    words = ("resume", name, "--set", "continual.min_files=100")
    process = begin(learnt, *words)
    before = kinds(learnt / name).count("waiting_for_data")
    until(lambda: kinds(learnt / name).count("waiting_for_data") > before, process)
    process.send_signal(number)
    assert process.wait(20) == code
    assert json.loads((learnt / name / "result.json").read_text())["status"] == "stopped"
