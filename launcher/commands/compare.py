"""Runs modes or engines side by side, measures them, and holds modes to their promises."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import datetime, timezone

from launcher.base import exit_codes
from launcher.base.diagnostics import PROGRAM, counted, render
from launcher.cli.options import JSON
from launcher.cli.parser import Request
from launcher.compare import candidates, report, runner, tables
from launcher.compare.candidates import Comparison
from launcher.compare.runner import ComparisonFacts
from launcher.config import machine


def main(request: Request) -> int:
    """Decide, run all in turns, and tell; the exit code. Raises SettingsError.

    1 where a run failed or a promise was broken. DIR then holds compare.json and compare.html also
    where it was interrupted, with what was measured.
    """
    decided = candidates.decide(request)
    for_machines = JSON.flag in request.flags
    if decided.warnings:
        print(render(decided.warnings), file=sys.stderr)
    if "--dry-run" in request.flags:
        print(_plan(decided, for_machines))
        return exit_codes.DONE
    stream = sys.stderr if for_machines else sys.stdout
    facts = ComparisonFacts(
        command=f"{PROGRAM} {shlex.join(request.typed)}",
        machine=machine.look().sentence,
        device=decided.candidates[0].resolved.device,
        limits=decided.limits,
        repeats=decided.repeats,
        at=datetime.now(timezone.utc),
    )

    def tell(line: str) -> None:
        print(line, file=stream, flush=True)

    outcome = runner.run_all(decided, tell)
    content = report.write(decided.folder, facts, outcome)
    print(content if for_machines else tables.text(facts, outcome, decided.folder))
    if outcome.code is not None:
        return outcome.code
    return exit_codes.DONE if outcome.is_sound else exit_codes.FAULT


def _plan(decided: Comparison, for_machines: bool) -> str:
    """What would be run, and nothing of it is."""
    runs = [
        {"mode": one.mode, "engine": one.engine, "arguments": runner.arguments(one.words)}
        for one in decided.candidates
    ]
    if for_machines:
        content = {"folder": str(decided.folder), "repeats": decided.repeats, "runs": runs}
        return json.dumps(content, indent=2)
    count = counted(len(runs) * decided.repeats, "run")
    lines = [shlex.join([*PROGRAM.split(), *runner.arguments(o.words)]) for o in decided.candidates]
    return "\n".join([f"{count} in turns, into {decided.folder}:", *lines])
