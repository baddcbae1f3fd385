"""Every output gets the callbacks of a run as text, in order."""

from pathlib import Path

import pytest

from tests.training.facts import about, evaluation, logged, outcome, step, train_plan
from tests.training.logging.clock import Clock
from training.logging.console_reporter import ConsoleReporter
from training.storage import StorageError


class Memory:
    """An output that records its texts."""

    is_live = True

    def __init__(self, is_live=True):
        self.is_live = is_live
        self.written = []
        self.drawn = []
        self.is_closed = False

    def write(self, kind, text):
        self.written.append((kind, text))

    def write_block(self, title, text):
        self.written.append((title, text))

    def draw(self, view):
        self.drawn.append(view.position.step)
        self.view = view

    def close(self):
        self.is_closed = True


class Broken(Memory):
    """An output whose disk is full at the end."""

    def write(self, kind, text):
        if kind == "summary":
            raise StorageError(Path("log.txt"), OSError(28, "No space left on device"))


def test_every_output_gets_each_callback_in_order(tmp_path):
    outputs = [Memory(), Memory(is_live=False)]
    reporter = ConsoleReporter(about(tmp_path), outputs, Clock())
    reporter.start(train_plan())
    reporter.event("preview", {"when": "before", "text": "xyz\x1b"})
    reporter.step(step(1))
    reporter.logged(logged(1))
    reporter.evaluated(evaluation(1))
    reporter.evaluated(evaluation(1, is_best=False, split="test"))
    reporter.saved(tmp_path / "checkpoints" / "step-00000001", 1, 0.5)
    reporter.event("throttled", {"over": ["ram"], "ram": 91.0})
    reporter.event("relieved", {"ram": 41.0})
    reporter.end(outcome())

    kinds = ["head", "before training", "train", "best", "evaluated", "saved", "warning", "log"]
    for output in outputs:
        assert [kind for kind, _ in output.written] == [*kinds, "summary"]
        assert output.written[1] == ("before training", "xyz\x1b")
        assert output.written[5] == ("saved", "saved        1/100  checkpoints/step-00000001")
        assert output.is_closed


def test_a_full_disk_ends_the_run_but_hides_no_earlier_error(tmp_path):
    broken, after = Broken(), Memory()
    reporter = ConsoleReporter(about(tmp_path), [broken, after], Clock())
    reporter.end(outcome(status="failed"))  # before its start
    assert broken.is_closed and after.is_closed and after.written == []
    reporter.start(train_plan())
    with pytest.raises(StorageError):
        reporter.end(outcome())
    reporter.end(outcome(status="failed"))
