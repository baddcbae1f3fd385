"""Every output gets the callbacks of a run as text, in order."""

from pathlib import Path

import pytest

from gearshift.training.logging import console_text
from gearshift.training.logging.console_reporter import ConsoleOutput, ConsoleReporter
from gearshift.training.storage import StorageError
from tests.training.facts import about, evaluation, logged, outcome, step, train_plan
from tests.training.logging.clock import Clock


class Memory(ConsoleOutput):
    """An output that records its texts, and the positions that it drew."""

    def __init__(self):
        self.written, self.drawn = [], []
        self.is_closed = False

    def write(self, kind, text):
        self.written.append((kind, text))

    def draw(self, lines):
        self.drawn.append(lines[0].split("  ")[1])

    def close(self):
        self.is_closed = True


class Broken(Memory):
    """An output whose disk is full at the end."""

    def write(self, kind, text):
        if kind == "summary":
            raise StorageError(Path("log.txt"), OSError(28, "No space left on device"))


def test_every_output_gets_each_callback_in_order(tmp_path):
    outputs = [Memory(), Memory()]
    reporter = ConsoleReporter(about(tmp_path), outputs, Clock())
    reporter.start(train_plan())
    reporter.event(
        "preview", {"when": "before", "text": "\n".join(["x" * 101, "", *["y\x1b"] * 6])}
    )
    reporter.step(step(1))
    reporter.logged(logged(1))
    reporter.evaluated(evaluation(1))
    reporter.evaluated(evaluation(1, is_best=False, split="test"))
    reporter.saved(tmp_path / "checkpoints" / "step-00000001", 1, 0.5)
    reporter.event("throttled", {"over": ["ram"], "ram": 91.0})
    reporter.event("relieved", {"ram": 41.0})
    reporter.end(outcome())

    kinds = [
        "head",
        "log",
        "preview",
        "train",
        "best",
        "notice",
        "saved",
        "warning",
        "log",
        "summary",
    ]
    for output in outputs:
        assert [kind for kind, _ in output.written] == kinds
        long, short = (text.splitlines() for _, text in output.written[1:3])
        assert long == ["before training", "| " + "x" * 101, "| ", *["| y�"] * 6]
        assert short[1] == "| " + "x" * 98 and short[2:] == ["| y�"] * 4
        assert output.written[6] == ("saved", "saved        1/100  checkpoints/step-00000001")
        assert output.is_closed and output.drawn == ["step 1/100"]


def test_a_full_disk_at_the_end_is_an_error_and_closes_every_output(tmp_path):
    broken, after = Broken(), Memory()
    reporter = ConsoleReporter(about(tmp_path), [broken, after], Clock())
    reporter.start(train_plan())
    with pytest.raises(StorageError):
        reporter.end(outcome())
    assert broken.is_closed and after.is_closed


def test_facts_are_shown_without_exponents():
    facts = {"mean_tokens": 11720.3, "documents": 1234567, "rate": 1e-3, "share": 0.123456}
    text = console_text.render_facts(facts)
    assert text == "mean tokens 11,720, documents 1,234,567, rate 0.001, share 0.1235"
