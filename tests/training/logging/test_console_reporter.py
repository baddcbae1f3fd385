"""What the loop tells reaches each voice as text, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.facts import about, evaluation, logged, outcome, step, train_plan
from tests.training.logging.clock import Clock
from training.logging.console_reporter import ConsoleReporter
from training.logging.outputs import Kind
from training.logging.progress import Position
from training.storage import StorageError


class Memory:
    """A voice that keeps what it was told."""

    draws = True

    def __init__(self, draws: bool = True) -> None:
        self.draws = draws
        self.said: list[tuple[str, str]] = []
        self.drawn: list[int] = []
        self.is_closed = False

    def say(self, kind: Kind, text: str) -> None:
        self.said.append((kind, text))

    def show(self, title: str, text: str) -> None:
        self.said.append((title, text))

    def draw(self, position: Position, units: str, use: str) -> None:
        self.drawn.append(position.step)

    def close(self) -> None:
        self.is_closed = True


class Broken(Memory):
    """A voice whose disk is full at the end."""

    def say(self, kind: Kind, text: str) -> None:
        if kind == "summary":
            raise StorageError(Path("log.txt"), OSError(28, "No space left on device"))


def test_each_moment_is_told_in_order_to_every_voice(tmp_path: Path):
    voices = [Memory(), Memory(draws=False)]
    narrator = ConsoleReporter(about(tmp_path), voices, Clock())
    narrator.start(train_plan())
    narrator.event("preview", {"when": "before", "text": "xyz\x1b"})
    narrator.step(step(1))
    narrator.logged(logged(1))
    narrator.evaluated(evaluation(1))
    narrator.evaluated(evaluation(1, is_best=False, split="test"))
    narrator.saved(tmp_path / "checkpoints" / "step-00000001", 1)
    narrator.event("throttled", {"over": ["ram"], "ram": 91.0})
    narrator.event("relieved", {"ram": 41.0})
    narrator.end(outcome())

    kinds = ["head", "before training", "train", "best", "evaluated", "saved", "warning", "log"]
    for voice in voices:
        assert [kind for kind, _ in voice.said] == [*kinds, "summary"]
        assert voice.said[1] == ("before training", "xyz�")
        assert voice.said[5] == (
            "saved",
            "saved        1/100  checkpoints/step-00000001",
        )
        assert voice.is_closed


def test_weights_that_were_put_back_are_told(tmp_path: Path):
    voice = Memory()
    narrator = ConsoleReporter(about(tmp_path), [voice], Clock())
    narrator.start(train_plan())
    narrator.event("best_loaded", {"metric": "loss", "value": 2.25, "step": 50})
    assert voice.said[-1] == ("notice", "weights    those of step 50, the best")


def test_drawing_is_rare_and_for_those_who_draw(tmp_path: Path):
    clock = Clock()
    voice, plain = Memory(), Memory(draws=False)
    narrator = ConsoleReporter(about(tmp_path), [voice, plain], clock)
    narrator.start(train_plan())
    for number in range(1, 101):
        clock.seconds += 0.0625
        narrator.step(step(number))

    assert voice.drawn == [1, *range(5, 101, 4)]  # each quarter of a second
    assert plain.drawn == []


def test_a_slow_terminal_takes_no_more_than_its_share(tmp_path: Path):
    clock = Clock()

    class Slow(Memory):
        def draw(self, position: Position, units: str, use: str) -> None:
            clock.seconds += 0.01
            super().draw(position, units, use)

    voice = Slow()
    narrator = ConsoleReporter(about(tmp_path), [voice], clock)
    narrator.start(train_plan())
    began = clock.seconds
    for number in range(1, 101):
        clock.seconds += 0.5
        narrator.step(step(number))

    assert len(voice.drawn) * 0.01 <= 0.0025 * (clock.seconds - began)


def test_a_full_disk_ends_the_run_but_hides_no_earlier_fault(tmp_path: Path):
    broken, after = Broken(), Memory()
    narrator = ConsoleReporter(about(tmp_path), [broken, after], Clock())
    narrator.start(train_plan())

    with pytest.raises(StorageError):
        narrator.end(outcome())
    assert broken.is_closed and after.is_closed
    narrator.end(outcome(status="failed"))


def test_a_run_that_failed_before_it_began_closes_its_voices(tmp_path: Path):
    voice = Memory()
    ConsoleReporter(about(tmp_path), [voice]).end(outcome(status="failed"))

    assert voice.is_closed and voice.said == []
