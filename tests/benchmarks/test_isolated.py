"""A part in its own processes reports, fails with its last line, or is ended in time."""

from __future__ import annotations

import os
import signal

from benchmarks import isolated
from benchmarks.isolated import Report
from tests.engines.pool import preload
from tests.waiting import LIMIT_S

HERE = "tests.benchmarks.test_isolated"


def report_rank(report: Report, value: int) -> None:
    report({"value": value, "world": os.environ["WORLD_SIZE"], "mine": os.environ["MINE"]})


def report_facts(report: Report, facts: dict[str, object]) -> None:
    report(facts)


def report_and_fail(report: Report) -> None:
    report({"value": 1})
    raise ValueError("no\nsecond line")


def die(report: Report) -> None:
    os._exit(3)


def wait(report: Report) -> None:
    if os.environ["RANK"] == "0":
        report({"value": 2})
        signal.pause()


def run(
    function: str, limit_s: float = LIMIT_S, ranks: int = 1, nodes: int = 1, **arguments: object
):
    preload("cpu")  # for later tests: the first use of the server decides what it has imported
    return isolated.run(f"{HERE}:{function}", arguments, ranks, limit_s, {"MINE": "yes"}, nodes)


def test_figures_of_rank_0_are_reported():
    result = run("report_rank", ranks=2, value=7)
    assert result.error == "" and result.seconds > 0
    assert result.figures == {"value": 7, "world": "2", "mine": "yes"}
    assert "MINE" not in os.environ


def test_a_part_that_fails_or_takes_too_long_is_ended_with_what_it_reported():
    failed = run("report_and_fail")
    assert (failed.figures, failed.error) == ({"value": 1}, "ValueError: no")
    assert run("die").error == "exit code 3"
    assert run("wait", limit_s=1.0, ranks=2).error == "took longer than 1 s"
