"""A program: a short run told on standard output, which ends as the word after its name says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.training.facts import about, evaluation, logged, outcome, step, train_plan
from tests.training.logging.clock import Clock
from training.logging.console_reporter import ConsoleReporter
from training.logging.outputs import ConsoleOutput, PlainOutput
from training.logging.terminal import TerminalOutput, is_capable


def main(ending: str) -> None:
    voice: ConsoleOutput = (
        TerminalOutput(sys.stdout) if is_capable(sys.stdout) else PlainOutput(sys.stdout)
    )
    clock = Clock()
    narrator = ConsoleReporter(about(Path("runs/x")), [voice], clock)
    narrator.start(train_plan(eval_every=10))
    narrator.event("preview", {"when": "before", "text": "a \x1b[31mred [bold]preview"})
    try:
        for number in range(1, 21):
            clock.seconds += 1.0
            narrator.step(step(number))
            if number % 5 == 0:
                narrator.logged(logged(number))
            if number == 10:
                narrator.evaluated(evaluation(number))
                print("printed by a library")
                print("warned by a library", file=sys.stderr)
            if number == 15 and ending == "killed":
                os._exit(1)
            if number == 15 and ending == "raised":
                raise RuntimeError("out of luck")
    except RuntimeError:
        narrator.end(outcome(status="failed", reason="out of luck"))
        raise
    narrator.end(outcome())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
