"""The YAML that comes with the program: modes, limits profiles, families and recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import gearshift
from gearshift.launcher.base.diagnostics import SettingsError, unknown
from gearshift.launcher.config.settings_file import Line, read_lines

FOLDER = Path(gearshift.__file__).parent / "ds_configs"
TASK_FOLDER = "model.folder"
"""The setting with the folder of a custom task's module."""
_RECIPES = "recipes"


@dataclass(frozen=True)
class Preset:
    """A shipped file: a mode, a limits profile or a recipe, or a family with all its blocks."""

    lines: Sequence[Line]
    sentence: str = ""
    """Of a mode, a profile or a recipe."""

    @property
    def promise(self) -> Mapping[str, Any]:
        """The promises of a mode, by measure."""
        return next((line.value for line in self.lines if line.key == "promise"), {})

    def block(self, *path: str) -> list[Line]:
        """The settings of a block of a family.

        ("default"), ("modes", MODE), ("sizes", SIZE), ("sizes", SIZE, "modes", MODE); the same
        with "stages", what each stage changes in mode staged; ("given", KEY): what follows where
        the user gives that setting a value; and of a custom task's class ("declared").
        """
        prefix = f"{'.'.join(path)}."
        lines = []
        for line in self.lines:
            key = line.key.removeprefix(prefix)
            if key != line.key and not key.startswith(("modes.", "stages.")):
                lines.append(line._replace(key=key))
        return lines


@cache
def modes(folder: str = "modes") -> tuple[str, ...]:
    """The names of all modes, `default` first; or of the files in another folder."""
    names = [path.stem for path in (FOLDER / folder).glob("*.yaml")]
    return tuple(sorted(names, key=lambda name: (name != "default", name)))


def mode(name: str, folder: str = "modes") -> Preset:
    """One mode by its name; of the folder `profiles`, a limits profile. Reads the disk."""
    return file(f"{folder}/{name}")


def recipes() -> dict[str, Preset]:
    """Settings for a named model, by what `--config` takes: `recipes/NAME`. Reads the disk."""
    names = [f"{_RECIPES}/{name}" for name in modes(_RECIPES)]
    return {name: file(name) for name in names}


def config_lines(path: Path, option: str = "--config") -> Sequence[Line]:
    """The settings of a file of the `option`: the user's own, or a recipe.

    Reads the disk. Raises SettingsError.
    """
    shipped = {} if path.exists() else recipes()
    name = str(path).removesuffix(".yaml")
    whole = f"{_RECIPES}/{name}"
    if whole not in shipped and (path.exists() or str(path.parent) != _RECIPES):
        return read_lines(path, option)
    if name not in shipped:
        message = f"there is no file {path}, and no recipe of this name"
        error = unknown("--config", name, shipped, message)
        similar = whole if whole in shipped else error.did_you_mean
        fix = similar and f"--config {similar}"
        typed = (f"--config {path}",)
        raise SettingsError([replace(error, did_you_mean=similar, fix=fix, replaces=typed)])
    return shipped[name].lines


def family(name: str) -> Preset:
    """A family's file. Reads the disk."""
    return file(f"models/{name}")


@cache
def file(name: str) -> Preset:
    """A shipped file. Reads the disk."""
    lines = read_lines(FOLDER / f"{name}.yaml", name=f"ds_configs/{name}.yaml")
    sentence = ""
    settings = []
    for line in lines:
        if line.key == "sentence":
            sentence = line.value
        else:
            settings.append(line)
    return Preset(settings, sentence)
