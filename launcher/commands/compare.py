"""Run modes or engines side by side, measure them, and check the promises of modes."""

from __future__ import annotations

import sys

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import counted, program_line
from gearshift.launcher.base.redaction import redact_values
from gearshift.launcher.commands import output
from gearshift.launcher.compare import candidates, report, runner
from gearshift.launcher.compare.candidates import PlannedComparison
from gearshift.launcher.config.argument_list import arguments
from gearshift.launcher.config.command_line import CommandLine
from gearshift.training.logging.encoding import printable


def main(command_line: CommandLine) -> int:
    """Run the comparison and give the exit code: 1 if a run failed or a promise was broken.

    Writes compare.json and compare.html, also after an interruption. Raises SettingsError.
    """
    comparison = candidates.decide(command_line)
    output.show_warnings(command_line, comparison.warnings)
    if "--dry-run" in command_line.values:
        return _show_runs(command_line, comparison)

    progress = sys.stderr if command_line.as_json else sys.stdout

    def report_line(line: str) -> None:
        print(printable(line), file=progress, flush=True)

    outcome = runner.run_all(comparison, report_line)
    if outcome.code is not None and not any(row.folders for row in outcome.rows):
        print("interrupted before the first run was complete; nothing was written", file=sys.stderr)
        return outcome.code
    content = report.write(comparison, outcome)
    print(content if command_line.as_json else printable(report.text(comparison, outcome)))
    code = exit_codes.DONE if outcome.is_sound else exit_codes.FAILURE
    return code if outcome.code is None else outcome.code


def _show_runs(command_line: CommandLine, comparison: PlannedComparison) -> int:
    """The runs that would start, for --dry-run."""
    study = comparison.study
    runs = []
    lines = []
    for candidate in comparison.candidates:
        words = redact_values(arguments(candidate.args))
        runs.append({"mode": candidate.mode, "engine": candidate.engine, "arguments": words})
        lines.append(program_line(*words))
    rounds = [{"name": name, "set": sets} for name, sets in study.rounds.items()]
    content = {
        "folder": comparison.folder,
        "runs": runs,
        "folds": study.folds,
        "seeds": study.seeds,
        "rounds": rounds,
    }
    for name, sets in study.rounds.items():
        if sets:
            lines.append(f"{name}: {' '.join(sets)}")
    title = f"{counted(len(runs), 'candidate')} × {counted(len(rounds), 'round')} in turns"
    text = "\n".join([f"{title}, into {comparison.folder}:", *lines])
    return output.show(command_line, content, text)
