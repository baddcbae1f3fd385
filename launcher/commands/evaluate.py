"""The command `evaluate`: measure a checkpoint of a run on a split of its data."""

from __future__ import annotations

import sys

from launcher.base import exit_codes
from launcher.config.command_line import CommandLine
from launcher.saved_runs import evaluate
from launcher.saved_runs.rerun import RerunFailed
from training.checkpoint.manifest import CheckpointError
from training.logging.printable import printable
from training.logging.strict_json import encode


def main(command_line: CommandLine) -> int:
    """Evaluate, record and print; the exit code. Raises SettingsError."""
    as_json = command_line.as_json
    try:
        argument, values = command_line.argument, command_line.values
        split = evaluate.parse_split(values.get("--split"))
        checkpoint = values.get("--checkpoint")
        evaluation = evaluate.prepare(argument, checkpoint, split, command_line.args)
        if not as_json and sys.stderr.isatty():
            print(f"evaluating {evaluation.describe()}", file=sys.stderr, flush=True)
        facts = evaluate.evaluate(evaluation)
    except (RerunFailed, CheckpointError) as error:
        if as_json:
            print(encode({"error": str(error)}, indent=2))
        else:
            print(f"error: {error}", file=sys.stderr)
        return error.code if isinstance(error, RerunFailed) else exit_codes.FAILURE
    saved = evaluate.record(evaluation.folder, facts)
    if saved is not None:
        from launcher.report import report

        report.refresh(evaluation.folder)
    if as_json:
        file = None if saved is None else str(saved)
        folder = str(evaluation.model.path)
        print(encode({**facts, "checkpoint": folder, "file": file, "error": None}, indent=2))
    else:
        print(printable(evaluate.render(evaluation, facts, saved)))
    return exit_codes.DONE
