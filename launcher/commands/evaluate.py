"""The command `evaluate`: measure a checkpoint of a run on a split of its data."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from gearshift.launcher.base import exit_codes
from gearshift.launcher.commands import output
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.saved_runs import evaluate
from gearshift.training.callbacks.base import Json


def main(command_line: CommandLine) -> int:
    """Evaluate, record and print; the exit code. Raises SettingsError, CommandFailed."""
    facts, text = measure(
        command_line.argument,
        command_line.values.get("--split"),
        command_line.values.get("--checkpoint"),
        command_line.args,
        partial(output.announce, command_line),
    )
    output.show(command_line, facts, text)
    if facts["error"] is None:
        return exit_codes.DONE
    if not command_line.as_json:
        print(f"error: {facts['error']}", file=sys.stderr)
    return exit_codes.FAILURE


def measure(
    run: str,
    split: str | None,
    checkpoint: str | None,
    args: CliArgs,
    announce: Callable[[str], object] = lambda line: None,
) -> tuple[Json, str]:
    """Measure a checkpoint and record it in the run; the facts, and the text to show.

    `announce` gets a line before it. Raises SettingsError, CommandFailed and CheckpointError.
    """
    split = evaluate.parse_split(split)
    model, resolved = evaluate.prepare(run, checkpoint, args)
    title = evaluate.describe(model, resolved)
    announce(f"evaluating {title}")
    _, *sources = args.options.get("data.path", ("",))
    facts = evaluate.evaluate(model, resolved, split, ", ".join(sources) or None)
    assert model.folder, "it was found in its run"
    saved = evaluate.record(model.folder, facts)
    if saved:
        from gearshift.launcher.report import earlier_page

        earlier_page.refresh(model.folder)
    text = evaluate.render(title, facts, saved)
    return {**facts, "checkpoint": str(model.path), "file": saved and str(saved)}, text
