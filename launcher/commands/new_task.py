"""The command `new-task`: write a template of a custom task."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from gearshift.launcher.base import disk
from gearshift.launcher.base.diagnostics import PROGRAM, SettingsError
from gearshift.launcher.commands import output
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.presets import TASK_FOLDER
from gearshift.launcher.run_folder import run_folder

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TEMPLATE = Path(__file__).with_suffix(".template")


def main(command_line: CommandLine) -> int:
    """Write the file and print the command that trains it; the exit code. Raises SettingsError."""
    name = command_line.argument
    folder = command_line.out or Path()
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    path = folder / f"{module}.py"
    where = f"command line: new-task {name}"
    if not _is_name(name):
        corrected_name = re.sub(r"\W", "_", name.removesuffix(".py"))
        raise SettingsError.of(
            f"'{name}' is not a valid task name",
            value=name,
            where=where,
            allowed="letters, digits and _, starting with a letter, such as my_images",
            fix=corrected_name if _is_name(corrected_name) else None,
            replaces=(name,),
        )
    # A namespace package has no origin.
    if path.exists() or getattr(find_spec(module), "origin", None) is not None:
        raise SettingsError.of(
            f"{path} exists, or Python would import another module '{module}' instead",
            value=name,
            where=where,
            allowed="a name that is not used in that folder",
        )
    class_name = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    text = template(class_name)
    where = f"--out {folder}" if command_line.out else "the current folder"
    disk.check_writable(folder, where, needed_bytes=len(text))
    with disk.writing(path, where), disk.new_parents(path):
        run_folder.write_new(path, text)
    model = f"{module}:{class_name}"
    command = f"{PROGRAM} --model {model}"
    if command_line.out:
        command += f" --set {shlex.quote(f'{TASK_FOLDER}={folder}')}"
    return output.show(
        command_line,
        {"file": path, "model": model, "command": command},
        f"wrote {path}\ntrain it:  {command}",
    )


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and not iskeyword(text)


def template(class_name: str) -> str:
    """The text of a file with a custom task of class `class_name`."""
    return Template(_TEMPLATE.read_text("utf-8")).substitute(name=class_name)
