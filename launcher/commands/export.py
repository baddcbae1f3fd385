"""The command `export`: write the model of a checkpoint for other programs."""

from __future__ import annotations

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.commands import output
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.saved_runs import export
from gearshift.launcher.saved_runs.saved_model import find_saved


def main(command_line: CommandLine) -> int:
    """Write the files and list them; the exit code. Raises SettingsError."""
    format_name = command_line.values.get("--format")
    invalid = export.invalid_format(format_name)
    if invalid:
        raise SettingsError(invalid)
    assert format_name is not None
    run = find_saved(command_line.argument, "export", command_line.args.sets)
    name = command_line.values.get("--checkpoint")
    out = command_line.out
    where = "the default of --out" if out is None else f"command line: --out {out}"
    facts = export.write(run, name, format_name, out, where)
    lines = [f"exported step {facts['step']} to {facts['folder']}"]
    lines.append(f"  files    {', '.join(facts['files'])}")
    for title, text in facts["notes"].items():
        lines.append(f"  {title:<7}  {text}")
    return output.show(command_line, facts, "\n".join(lines))
