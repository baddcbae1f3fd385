"""A tracker gets every line of a run, also those that were written just before its end."""

import json
import threading
from dataclasses import replace

import pytest

from gearshift.training.settings import TRACKERS
from gearshift.training.trackers import follow
from gearshift.training.trackers.follow import Following, Run, Tracker

LINES = 7
sent: list[int] = []
uploaded: list[int] = []
known = [0]
"""The last one: the newest step that the tracker has."""


class Session(Tracker):
    """Keeps the steps that it gets."""

    notice = ("notice", "")

    def __init__(self, run, project, identifier):
        sent.clear()
        self.last_step = known[-1]

    def log(self, step, values):
        sent.append(step)

    def upload(self, step, files, is_best):
        uploaded.append(step)


@pytest.fixture(autouse=True)
def recorded(monkeypatch):
    monkeypatch.setitem(TRACKERS, "recorded", replace(TRACKERS["tensorboard"], module=__name__))
    uploaded.clear()


def following(folder, **changes):
    """It follows a run that is over; and what it says."""
    over, said = threading.Event(), []
    over.set()
    run = Run(folder, ["recorded"], {}, {}, {}, **changes)
    return Following(run, "recorded", over, lambda *words: said.append(words[0])), said


def test_lines_that_are_written_while_the_run_ends_are_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(follow, "_MOST_LINES", LINES // 2)
    ended(tmp_path)
    follower, said = following(tmp_path)
    follower.follow()
    assert sent == list(range(1, LINES + 1)) and said == ["notice"]


def test_steps_that_the_tracker_has_are_not_sent_again(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.training.trackers.test_follow.known", [3])
    ended(tmp_path)
    following(tmp_path)[0].follow()
    assert sent == list(range(4, LINES + 1))


def ended(folder):
    """Write the files of a run of LINES steps that is over."""
    lines = [{"kind": "train", "step": step, "loss": 1.0} for step in range(1, LINES + 1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    stopped = {"kind": "stopped", "step": LINES, "facts": {"exit_code": 0}}
    (folder / "events.jsonl").write_text(json.dumps(stopped) + "\n")
    (folder / "result.json").write_text("{}")


def test_a_checkpoint_of_this_process_is_uploaded_once_also_where_sending_starts_again(tmp_path):
    events = []
    for step in (1, 2, 3):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
        events.append({"kind": "saved", "step": step, "facts": {"folder": str(step)}})
    (tmp_path / "events.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    follower, _ = following(tmp_path, first_step=1, checkpoints="all")
    for _ in range(2):
        follower.send()
    assert uploaded == [2, 3]
