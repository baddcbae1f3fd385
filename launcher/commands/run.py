"""Trains; or, as a dry run, shows what would be done."""

from __future__ import annotations

import json
import sys

from launcher import exit_codes, plan, start
from launcher.cli import Request
from launcher.messages import render
from launcher.options import JSON
from launcher.processes import last_words
from launcher.processes.report import Report


def main(request: Request) -> int:
    """Decide, show, and train; the exit code. Raises SettingsError."""
    ready = start.prepare(request.words, request.out, list(request.faults))
    for_machines = JSON.flag in request.flags
    if ready.resolved.warnings and ready.speaks:
        print(render(ready.resolved.warnings), file=sys.stderr)
    if "--dry-run" in request.flags:
        print(_dry_run(ready.plan, for_machines), end="")
        return exit_codes.DONE
    if (left := ready.nothing_left) is not None:
        told = {"exit_code": exit_codes.DONE, "folder": str(ready.folder), "error": None}
        if ready.speaks:
            print(json.dumps({**told, **left.outcome}, indent=2) if for_machines else left.line)
        return exit_codes.DONE
    if ready.speaks and not for_machines:
        print(plan.first_line(ready.plan), flush=True)
    finished = start.carry_out(ready, console=not for_machines, tell=tell)
    if for_machines and ready.speaks:
        print(json.dumps(_result(finished), indent=2))
    elif line := finished.last_line(_is_embedded(ready)):
        print(line)
    if ready.place is not None and finished.report.kind != "ended":
        last_words.end_hard(finished.report.exit_code)
    return finished.report.exit_code


def tell(report: Report) -> None:
    """Say on stderr how a rank ended, with its traceback where it is a fault of the program."""
    sys.stdout.flush()
    print(report.text, file=sys.stderr)
    if report.trace:
        print(report.trace.rstrip(), file=sys.stderr)
    sys.stderr.flush()


def _is_embedded(ready: start.Start) -> bool:
    """Whether no data was named, where data has a path at all."""
    path = getattr(ready.resolved.settings.data, "path", None)
    return isinstance(path, str) and path.startswith("embedded:")


def _dry_run(decided: plan.Plan, for_machines: bool) -> str:
    if for_machines:
        return json.dumps(plan.as_json(decided), indent=2) + "\n"
    return plan.text(decided)


def _result(finished: start.Finished) -> dict[str, object]:
    return {
        "exit_code": finished.report.exit_code,
        "folder": str(finished.folder) if finished.folder else None,
        "error": finished.report.text or None,
        **(finished.report.outcome or {}),
    }
