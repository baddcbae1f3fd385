"""The command `report`: write the report of one run, or of several runs side by side."""

from __future__ import annotations

from pathlib import Path

from gearshift.launcher.commands import output
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.run_folder import checkpoint_search, run_folder

_OUTCOME = ("model", "mode", "engine", "best", "wall_s", "samples_per_s", "peak_memory_bytes")


def main(command_line: CommandLine) -> int:
    """Write the report; the exit code. Raises SettingsError and StorageError."""
    from gearshift.launcher.report import earlier_page, facts, report, run_record

    folders = list(map(Path, [command_line.argument, *command_line.more]))
    for folder in folders:
        if not run_record.runs_of(folder):
            raise checkpoint_search.no_run(folder, f"command line: report {folder}", "report")
    parent = folders[0] if len(folders) == 1 else Path()
    out = command_line.out or parent / run_folder.REPORT
    earlier_page.check_out(out, f"--out {out}" if command_line.out else "the default of --out")
    runs = report.write(folders, out)
    marks = facts.validation_marks(runs)
    warning = facts.DIFFERENT_VALIDATION if any(marks) else None
    outcomes = []
    for run, mark in zip(runs, marks, strict=True):
        word, _ = facts.status(run)
        outcomes.append(
            {
                "folder": str(run.folder),
                "status": word,
                "steps": run.steps,
                "validation": mark or None,  # the data of its best score
                **{name: run.result.get(name) for name in _OUTCOME},
            }
        )
    content = {"report": str(out), "runs": outcomes, "warning": warning}
    text = f"{out}\nwarning: {warning}" if warning else str(out)
    return output.show(command_line, content, text)
