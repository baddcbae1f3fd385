"""Writes a file with a task of the person's own, to start from."""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path

from launcher.base import environment, exit_codes
from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.cli.options import JSON
from launcher.cli.parser import Request
from launcher.commands import task_template
from launcher.config.custom_task import FOLDER

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_LEGAL = "letters, digits and _, a letter first, such as my_images"


def main(request: Request) -> int:
    """Write the file, and say how it is trained; the exit code. Raises SettingsError."""
    if request.diagnostics:
        raise SettingsError(request.diagnostics)
    assert request.word is not None
    module, class_name = _names(request.word)
    folder = request.out or Path()
    path = folder / f"{module}.py"
    _check_free(path, module, request.word)
    _write(path, task_template.text(class_name))
    model = f"{module}:{class_name}"
    command = f"{PROGRAM} --model {model}"
    if request.out is not None and folder.resolve() != Path.cwd():
        command += f" --set {shlex.quote(f'{FOLDER}={folder}')}"
    if JSON.flag in request.flags:
        print(json.dumps({"file": str(path), "model": model, "command": command}, indent=2))
    else:
        print(f"wrote {path}\nit trains as it is:  {command}")
    return exit_codes.DONE


def _names(word: str) -> tuple[str, str]:
    """What the module and the class are called. Raises SettingsError."""
    if not _NAME.fullmatch(word) or iskeyword(word):
        near = re.sub(r"\W+", "_", word, flags=re.ASCII).strip("_0123456789")
        usable = bool(_NAME.fullmatch(near)) and not iskeyword(near)
        why = "is a word of Python" if iskeyword(word) else "cannot be the name of a task"
        raise _refusal(f"'{word}' {why}", word, _LEGAL, near if usable else None)
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).lower()
    return module, "".join(part[:1].upper() + part[1:] for part in word.split("_"))


def _check_free(path: Path, module: str, word: str) -> None:
    """Raises SettingsError where a file or a module of that name is there."""
    if path.exists():
        raise _refusal(f"{path} is there already", word, "a name that is not taken in that folder")
    spec = None if module in environment.PACKAGES else find_spec(module)
    if module in environment.PACKAGES or (spec is not None and spec.origin is not None):
        what = f"there is a module '{module}' already, which Python would find in its place"
        raise _refusal(what, word, "a name that no module has", f"my_{module}")


def _write(path: Path, text: str) -> None:
    """Touches the disk. Raises SettingsError, with nothing written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as fault:
        reason = fault.strerror or str(fault)
        place = f"--out {path.parent}" if path.parent != Path() else "the folder you are in"
        what = f"{path} cannot be written: {reason}"
        raise SettingsError([Diagnostic(what, value=str(path), where=place)]) from fault


def _refusal(what: str, word: str, allowed: str, near: str | None = None) -> SettingsError:
    place = f"the command line: new-task {word}"
    fix = near and f"{PROGRAM} new-task {near}"
    return SettingsError(
        [Diagnostic(what, value=word, where=place, allowed=allowed, did_you_mean=near, fix=fix)]
    )
