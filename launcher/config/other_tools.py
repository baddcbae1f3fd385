"""Names and values of other programs, and what is typed here instead: read for errors only."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gearshift.launcher.base.diagnostics import OFF, ON, fold
from gearshift.launcher.config.command_line import BY_FLAG

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


def meaning(name: str, value: str = "", *, has_value: bool = False) -> Meaning | None:
    """What `name`, an option or a setting, and `value` mean; None: it is in no table.

    `has_value`: the value is a word of its own, which stays behind a name that takes none.
    """
    settings = _folded()
    key = fold(name)
    section, _, last = key.rpartition(".")
    # Before the last dot may be a section that says nothing.
    entry = settings.get(key if key in settings or section not in table()["sections"] else last)
    if entry is None:
        return None
    texts: Mapping[str, str] = {_ANY: entry} if isinstance(entry, str) else entry
    kind = value.lower()
    if kind not in texts:
        kind = _OFF if kind in OFF else _ON if kind in ("", *ON) else _ANY
    after = ""
    text = texts.get(kind, texts.get(_ANY))
    if text is None and _ON in texts:  # the word is of the command: --lora runs/mine
        text = texts[_ON]
        after = f" {shlex.quote(value)}" if has_value else ""
    if text is None:
        return Meaning(hint=f"its values are {', '.join(texts)}")
    if text.startswith(_DEFAULT):
        return Meaning(after.strip(), text.removeprefix(_DEFAULT))
    if not text.startswith("-"):
        return Meaning(hint=text)
    if not value and _PLACE.search(text):
        return Meaning(shown=_PLACE.split(text)[0].rstrip(" ="))
    line = _filled(text, value)
    return Meaning(line + after, shown=line)


def settings_in(line: str) -> Iterator[tuple[str, str]]:
    """The settings that the options of a line set, each with its text."""
    words = shlex.split(line)
    for flag, value in zip(words, [*words[1:], ""], strict=False):
        if flag == "--set":
            key, _, text = value.partition("=")
            yield key, text
        elif flag in BY_FLAG:
            option = BY_FLAG[flag]
            if option.key is not None and option.metavar is not None:
                yield option.key, value


def value_of(key: str, text: str) -> str:
    """The value of the setting `key` that another program calls `text`; else `text` itself."""
    names = table()["values"].get(key, {})
    return str(names.get(text.lower().replace("-", "_"), names.get(text.lower(), text)))


def command(name: str) -> str | None:
    """The command of ours, with its first argument, that another program calls `name`."""
    text: str | None = table()["commands"].get(name.lower())
    return text


def _filled(text: str, value: str) -> str:
    """The options of the table with a value in their places, quoted for a shell."""
    share = value
    try:
        number = float(value)
    except ValueError:
        number = 1.0
    if "PERCENT" in text or 0 < number < 1:
        share = f"{100 * number:g}%"
    values = {"VALUE": value, "STEPS": share, "PERCENT": share}
    words: list[str] = []
    for word in shlex.split(text):
        word = _PLACE.sub(lambda place: values[place[0]], word)
        key, equals, typed = word.partition("=")
        if equals:
            word = f"{key}={value_of(key, typed)}"
        elif words and words[-1] in BY_FLAG:
            word = value_of(BY_FLAG[words[-1]].key or "", word)
        words.append(word)
    return shlex.join(words)


def table() -> Mapping[str, Any]:
    """The settings, sections, values and commands of the file. Reads the disk."""
    with _FILE.open(encoding="utf-8") as file:
        table: Mapping[str, Any] = yaml.load(file, Loader=yaml.BaseLoader)  # noqa: S506
    return table


@cache
def _folded() -> Mapping[str, Any]:
    return {fold(name): entry for name, entry in table()["settings"].items()}
