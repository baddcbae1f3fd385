"""A tracker gets every line of a run, also those that were written just before its end."""

import json
import threading
from dataclasses import replace

from training.settings import TRACKERS
from training.trackers import follow
from training.trackers.follow import Run, Tracker, _Following

LINES = 7
sent: list[int] = []


class Session(Tracker):
    """Keeps the steps that it gets."""

    notice = ("notice", "")

    def __init__(self, run, project, identifier):
        sent.clear()

    def log(self, rows):
        sent.extend(step for step, _ in rows)


def test_lines_that_are_written_while_the_run_ends_are_sent(tmp_path, monkeypatch):
    monkeypatch.setitem(TRACKERS, "recorded", replace(TRACKERS["tensorboard"], module=__name__))
    monkeypatch.setattr(follow, "_MOST_LINES", LINES // 2)
    lines = [{"kind": "train", "step": step, "loss": 1.0} for step in range(1, LINES + 1)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    stopped = {"kind": "stopped", "step": LINES, "facts": {"exit_code": 0}}
    (tmp_path / "events.jsonl").write_text(json.dumps(stopped) + "\n")
    (tmp_path / "result.json").write_text("{}")
    over, said = threading.Event(), []
    over.set()
    run = Run(tmp_path, ["recorded"], {}, {}, {})
    _Following(run, "recorded", over, lambda *words: said.append(words[0])).follow()
    assert sent == list(range(1, LINES + 1)) and said == ["notice", "settled"]
