"""The command `evaluate`: measure a checkpoint of a run on a split of its data."""

from __future__ import annotations

import sys

from gearshift.launcher.base import exit_codes
from gearshift.launcher.commands import output
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.saved_runs import evaluate
from gearshift.launcher.saved_runs.rerun import RerunFailed
from gearshift.training.checkpoint.manifest import CheckpointError


def main(command_line: CommandLine) -> int:
    """Evaluate, record and print; the exit code. Raises SettingsError."""
    try:
        args = command_line.args
        values = command_line.values
        split = evaluate.parse_split(values.get("--split"))
        model, resolved = evaluate.prepare(command_line.argument, values.get("--checkpoint"), args)
        title = evaluate.describe(model, resolved)
        output.announce(command_line, f"evaluating {title}")
        _, *sources = args.options.get("data.path", ("",))
        facts = evaluate.evaluate(model, resolved, split, ", ".join(sources) or None)
    except (RerunFailed, CheckpointError) as error:
        return output.show_failure(command_line, error, {})
    assert model.folder, "it was found in its run"
    saved = evaluate.record(model.folder, facts)
    if saved:
        from gearshift.launcher.report import earlier_page

        earlier_page.refresh(model.folder)
    output.show(
        command_line,
        {**facts, "checkpoint": model.path, "file": saved},
        evaluate.render(title, facts, saved),
    )
    if facts["error"] is None:
        return exit_codes.DONE
    if not command_line.as_json:
        print(f"error: {facts['error']}", file=sys.stderr)
    return exit_codes.FAILURE
