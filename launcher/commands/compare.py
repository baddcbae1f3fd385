"""Run modes or engines side by side, measure them, and check the promises of modes."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import datetime, timezone

from launcher.base import exit_codes
from launcher.base.diagnostics import PROGRAM, counted, render
from launcher.base.redaction import redact
from launcher.compare import candidates, report, runner
from launcher.compare.candidates import PlannedComparison
from launcher.config import machine
from launcher.config.command_line import CommandLine
from training.logging.printable import printable


def main(command_line: CommandLine) -> int:
    """Run the comparison and give the exit code: 1 if a run failed or a promise was broken.

    Writes compare.json and compare.html, also after an interruption. Raises SettingsError.
    """
    comparison = candidates.decide(command_line)
    for_machines = command_line.as_json
    if comparison.warnings:
        print(render(comparison.warnings), file=sys.stderr)
    if "--dry-run" in command_line.flags:
        print(_plan(comparison, for_machines))
        return exit_codes.DONE
    facts = {
        "command": redact(f"{command_line.command.call} {shlex.join(command_line.argv)}"),
        "machine": machine.detect_machine().sentence,
        "device": comparison.candidates[0].resolved.device,
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }

    def report_line(line: str) -> None:
        print(printable(line), file=sys.stderr if for_machines else sys.stdout, flush=True)

    outcome = runner.run_all(comparison, report_line)
    if outcome.code is not None and not any(row.folders for row in outcome.rows):
        print("interrupted before the first run was complete; nothing was written", file=sys.stderr)
        return outcome.code
    content = report.write(comparison, facts, outcome)
    print(content if for_machines else printable(report.text(comparison, facts, outcome)))
    if outcome.code is not None:
        return outcome.code
    return exit_codes.DONE if outcome.is_sound else exit_codes.FAILURE


def _plan(comparison: PlannedComparison, for_machines: bool) -> str:
    """The runs that would start, for --dry-run."""
    runs = [
        {
            "mode": item.mode,
            "engine": item.engine,
            "arguments": [redact(text) for text in runner.arguments(item.args)],
        }
        for item in comparison.candidates
    ]
    study = comparison.study
    if for_machines:
        content = {"folder": str(comparison.folder), "repeats": comparison.repeats, "runs": runs}
        if study.title:
            rounds = [{"name": entry.name, "set": entry.sets} for entry in study.rounds]
            content |= {"folds": study.folds, "seeds": study.seeds, "rounds": rounds}
        return json.dumps(content, indent=2)
    lines = [
        redact(shlex.join([*PROGRAM.split(), *runner.arguments(candidate.args)]))
        for candidate in comparison.candidates
    ]
    lines += [f"{entry.name}: {' '.join(entry.sets)}" for entry in study.rounds if study.title]
    count = len(comparison.candidates)
    head = counted(count * len(study.rounds), "run")
    if study.title:
        head += f": {counted(count, 'candidate')} × {study.title}"
    return "\n".join([f"{head} in turns, into {comparison.folder}:", *lines])
