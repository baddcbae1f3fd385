"""Names and values of other programs, and what is typed here instead: read for errors only."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gearshift.launcher.base.diagnostics import OFF, ON, fold
from gearshift.launcher.config.command_line import BY_FLAG
from gearshift.launcher.config.named_model import name_of_hub
from gearshift.models.catalog import HUB

_FILE = Path(__file__).with_name("other_tools.yaml")
_DEFAULT = "default: "
_ON = "on"
_OFF = "off"
_ANY = "*"
_PLACE = re.compile("VALUE|STEPS|PERCENT")


class Meaning(NamedTuple):
    """What a name of another program, with a value, is here."""

    fix: str | None = None
    """Options to type; empty: none, as the default does it. None: there is only a hint."""
    hint: str | None = None
    shown: str | None = None
    """The options, also where a value was not typed."""


def meaning(name: str, value: str = "") -> Meaning | None:
    """What `name`, an option or a setting, and `value` mean; None: it is in no table."""
    settings = {fold(spelling): entry for spelling, entry in table()["settings"].items()}
    key = fold(name)
    section, _, last = key.rpartition(".")
    if key not in settings and section in table()["sections"]:  # it says nothing
        key = last
    if key not in settings:
        return None
    entry = settings[key]
    texts: Mapping[str, str] = {_ANY: entry} if isinstance(entry, str) else entry
    kind = value.lower()
    if kind not in texts and kind in OFF:
        kind = _OFF
    elif kind not in texts and kind in ("", *ON):
        kind = _ON
    text = texts.get(kind, texts.get(_ANY))
    if text is None:
        return Meaning(hint=f"its values are {', '.join(texts)}")
    if text.startswith(_DEFAULT):
        return Meaning("", text.removeprefix(_DEFAULT))
    if not text.startswith("-"):
        return Meaning(hint=text)
    if not value and _PLACE.search(text):
        return Meaning(shown=_PLACE.split(text)[0].rstrip(" ="))
    line = _filled(text, value)
    return Meaning(line, shown=line)


def settings_in(line: str) -> Iterator[tuple[str, str]]:
    """The settings that the options of a line set, each with its text."""
    for flag, value in pairwise([*shlex.split(line), ""]):
        option = BY_FLAG.get(flag)
        if flag == "--set":
            key, _, text = value.partition("=")
            yield key, text
        elif option is not None and option.key is not None and option.metavar is not None:
            yield option.key, value


def value_of(key: str, text: str) -> str:
    """The value of the setting `key` that another program calls `text`; else `text` itself."""
    names = {fold(name): value for name, value in table()["values"].get(key, {}).items()}
    return str(names.get(fold(text), text))


def repository(name: str, kind: str) -> str | None:
    """`hf:OWNER/NAME` of a common repository whose owner is not typed."""
    for known in table()["repositories"][kind]:
        if fold(known.rpartition("/")[2]) == fold(name):
            return f"{HUB}{known}"
    return None


def command(name: str) -> str | None:
    """The command of ours, with its first argument, that another program calls `name`."""
    text: str | None = table()["commands"].get(name.lower())
    return text


def _filled(text: str, value: str) -> str:
    """The options of the table with a value in their places, quoted for a shell."""
    words: list[str] = []
    for word in shlex.split(text):
        word = _PLACE.sub(lambda place: _as_length(value, place[0]), word)
        key, equals, typed = word.partition("=")
        if equals:
            word = f"{key}={value_of(key, typed)}"
        elif words and words[-1] == "--data":
            word = name_of_hub(word) or word
        elif words and words[-1] in BY_FLAG:
            word = value_of(BY_FLAG[words[-1]].key or "", word)
        words.append(word)
    return shlex.join(words)


def _as_length(value: str, place: str) -> str:
    """A value as typed; as a share of the run where it is one: below 1 step, or a PERCENT."""
    try:
        number = float(value)
    except ValueError:
        return value
    is_share = place == "PERCENT" or (place == "STEPS" and 0 < number < 1)
    return f"{100 * number:g}%" if is_share else value


@cache
def table() -> Mapping[str, Any]:
    """The settings, sections, values and commands of the file. Reads the disk."""
    with _FILE.open(encoding="utf-8") as file:
        table: Mapping[str, Any] = yaml.load(file, Loader=yaml.BaseLoader)  # noqa: S506
    return table
