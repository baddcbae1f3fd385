"""The command `evaluate`: measure a checkpoint of a run on a split of its data."""

from __future__ import annotations

import sys

from launcher.commands import output
from launcher.config.command_line import CommandLine
from launcher.saved_runs import evaluate
from launcher.saved_runs.rerun import RerunFailed
from training.checkpoint.manifest import CheckpointError


def main(command_line: CommandLine) -> int:
    """Evaluate, record and print; the exit code. Raises SettingsError."""
    try:
        argument, values = command_line.argument, command_line.values
        split = evaluate.parse_split(values.get("--split"))
        evaluation = evaluate.prepare(argument, values.get("--checkpoint"), split, command_line.args)
        if not command_line.as_json and sys.stderr.isatty():
            print(f"evaluating {evaluation.describe()}", file=sys.stderr, flush=True)
        facts = evaluate.evaluate(evaluation)
    except (RerunFailed, CheckpointError) as error:
        return output.show_failure(command_line, error, {})
    saved = evaluate.record(evaluation.folder, facts)
    if saved is not None:
        from launcher.report import report

        report.refresh(evaluation.folder)
    content = {**facts, "checkpoint": evaluation.model.path, "file": saved, "error": None}
    return output.show(command_line, content, evaluate.render(evaluation, facts, saved))
