"""A program: a short run reported on standard output; its argument selects the end."""

import os
import sys
from pathlib import Path

from gearshift.training.logging.console_reporter import ConsoleReporter, PlainOutput, can_redraw
from gearshift.training.logging.terminal import TerminalOutput
from tests.training.facts import about, evaluation, logged, outcome, step, train_plan
from tests.training.logging.clock import Clock


def main(ending):
    redraws = can_redraw(sys.stdout, os.environ.get("TERM"))
    output = TerminalOutput(sys.stdout) if redraws else PlainOutput(sys.stdout)
    clock = Clock()
    reporter = ConsoleReporter(about(Path("runs/x")), [output], clock)
    reporter.start(train_plan(eval_every=10))
    reporter.event("preview", {"when": "before", "text": "a \x1b[31mred [bold]preview"})
    try:
        for number in range(1, 21):
            clock.seconds += 1.0
            reporter.step(step(number))
            if number % 5 == 0:
                reporter.logged(logged(number))
            if number == 10:
                reporter.evaluated(evaluation(number))
                print("printed by a library")
                print("warned by a library", file=sys.stderr)
            if number == 15 and ending == "killed":
                os._exit(1)
            if number == 15 and ending == "raised":
                raise RuntimeError("out of luck")
    except RuntimeError:
        reporter.end(outcome(status="failed", reason="out of luck"))
        raise
    reporter.end(outcome())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
