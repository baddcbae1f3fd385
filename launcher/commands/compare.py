"""Run modes or engines side by side, measure them, and check the promises of modes."""

from __future__ import annotations

import shlex
import sys

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM, counted, render
from gearshift.launcher.base.redaction import redact
from gearshift.launcher.commands import output
from gearshift.launcher.compare import candidates, report, runner
from gearshift.launcher.compare.candidates import PlannedComparison
from gearshift.launcher.config.command_line import CommandLine, arguments
from gearshift.training.logging.printable import printable


def main(command_line: CommandLine) -> int:
    """Run the comparison and give the exit code: 1 if a run failed or a promise was broken.

    Writes compare.json and compare.html, also after an interruption. Raises SettingsError.
    """
    comparison = candidates.decide(command_line)
    for_machines = command_line.as_json
    if comparison.warnings:
        print(render(comparison.warnings), file=sys.stderr)
    if "--dry-run" in command_line.flags:
        return _show_runs(command_line, comparison)

    def report_line(line: str) -> None:
        print(printable(line), file=sys.stderr if for_machines else sys.stdout, flush=True)

    outcome = runner.run_all(comparison, report_line)
    if outcome.code is not None and not any(row.folders for row in outcome.rows):
        print("interrupted before the first run was complete; nothing was written", file=sys.stderr)
        return outcome.code
    content = report.write(comparison, outcome)
    print(content if for_machines else printable(report.text(comparison, outcome)))
    if outcome.code is not None:
        return outcome.code
    return exit_codes.DONE if outcome.is_sound else exit_codes.FAILURE


def _show_runs(command_line: CommandLine, comparison: PlannedComparison) -> int:
    """The runs that would start, for --dry-run."""
    study = comparison.study
    candidates = comparison.candidates
    runs = [
        {
            "mode": c.mode,
            "engine": c.engine,
            "arguments": [redact(text) for text in arguments(c.args)],
        }
        for c in candidates
    ]
    content = {"folder": comparison.folder, "repeats": comparison.repeats, "runs": runs}
    head = counted(len(runs) * len(study.rounds), "run")
    lines = []
    if study.title:
        rounds = [{"name": name, "set": sets} for name, sets in study.rounds.items()]
        content |= {"folds": study.folds, "seeds": study.seeds, "rounds": rounds}
        head += f": {counted(len(runs), 'candidate')} × {study.title}"
        lines = [f"{name}: {' '.join(sets)}" for name, sets in study.rounds.items()]
    lines = [*(f"{PROGRAM} {shlex.join(run['arguments'])}" for run in runs), *lines]
    text = "\n".join([f"{head} in turns, into {comparison.folder}:", *lines])
    return output.show(command_line, content, text)
