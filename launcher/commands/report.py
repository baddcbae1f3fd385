"""The command `report`: write the report of one run, or of several runs side by side."""

from __future__ import annotations

from pathlib import Path

from gearshift.launcher.commands import output
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.run_folder import checkpoint_search, run_folder


def main(command_line: CommandLine) -> int:
    """Write the report; the exit code. Raises SettingsError and StorageError."""
    from gearshift.launcher.report import facts, page, report, run_record

    folders = list(map(Path, [command_line.argument, *command_line.more]))
    for folder in folders:
        if not run_record.runs_of(folder):
            raise checkpoint_search.no_run(folder, f"command line: report {folder}", "report")
    parent = folders[0] if len(folders) == 1 else Path()
    out = command_line.out or parent / run_folder.REPORT
    page.check_out(out, f"--out {out}" if command_line.out else "the default of --out")
    runs = report.write(folders, out)
    note = facts.validation_note(runs)
    text = f"{out}\nwarning: {note}" if note else str(out)
    return output.show(command_line, report.as_json(runs, out), text)
