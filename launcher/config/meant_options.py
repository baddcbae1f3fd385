"""The option that was meant by an unknown one, or by a bare KEY=VALUE."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from launcher.base.diagnostics import fold, nearest_match
from launcher.config.options import (
    BY_FLAG,
    HELP,
    Option,
    is_switch,
    names,
)
from launcher.config.originals import flag_of, original_of, typed_line, typed_option
from launcher.config.other_tools import (
    REMOVE,
    meant,
    model_typed,
    option_line,
    pretrained_line,
    setting_of,
    similar,
)
from launcher.config.schema import PRETRAINED
from models.catalog import split_model_name

_ASSIGNMENT = re.compile(r"\+{0,2}(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)")
"""A bare KEY=VALUE, as a shell takes variables or another tool its settings."""


def nearest_option(
    options: Sequence[Option], flag: str, typed: str | None, argv: Sequence[str]
) -> tuple[str | None, str | None]:
    """The option that was probably meant by `flag`, and the line to type with its value."""
    flags = [option.flag for option in options] + [HELP.flag]
    ours = BY_FLAG.get(flag)
    if ours is not None and ours.key is not None and flag not in flags and fits("--set", flags):
        return f"--set {ours.key}", f"--set {ours.key}={shlex.quote(typed or 'true')}"
    near, family = nearest_match(flag, flags), _family(argv)
    is_ours = near is not None and fold(near) == fold(flag)
    line = None if is_ours else option_line(flag, typed, family, argv)
    if line is not None and "--modes" in flags:  # compare takes several
        line = re.sub("^--(mode|engine) ", r"--\1s ", line)
    if line is not None and fits(line, flags):
        return None if line.startswith(REMOVE) else _option_in(line, typed), line
    original = original_of(flag.lstrip("-"), family)
    is_key = not is_ours and (original is None or "." in flag) and fits("--set", flags)
    if is_key and (key := _key_of(flag.lstrip("-"))) is not None:
        value = ("true" if is_switch(key) else "VALUE") if typed is None else shlex.quote(typed)
        return f"--set {key}", f"--set {key}={value}"
    if original is None and near is None and (word := similar(flag)) is not None:
        return nearest_option(options, f"--{word}", typed, argv)
    if original is None or (is_ours and flag_of(original.here) == near):
        return near, near and _with_value(options, near, typed)
    if fits("", flags) and (removal := original.removal(typed)) is not None:
        return None, removal
    if flag_of(original.here) not in flags:
        return near, near and _with_value(options, near, typed)
    if original.here == PRETRAINED and family is None and typed is not None:
        return typed_option(original), pretrained_line(typed)  # of the family that takes it
    return typed_option(original), typed_line(original, typed)


def assignment_line(options: Sequence[Option], text: str, argv: Sequence[str]) -> str | None:
    """The option for a bare `KEY=VALUE`, a setting's or one of another tool; None: unknown."""
    match = _ASSIGNMENT.fullmatch(text)
    if match is None or Path(text).exists():
        return None
    key, value = match.groups()
    if key in names("keys"):
        return f"--set {shlex.quote(f'{key}={value}')}"
    return nearest_option(options, f"--{key}", value, argv)[1]


def _key_of(name: str) -> str | None:
    """The setting for a dotted key, or for the last part of a single one.

    Another key of a section stays as it is: the error of the setting has the nearest one.
    """
    keys = names("keys")
    if (key := setting_of(name) or next((k for k in keys if fold(k) == fold(name)), None)) in keys:
        return key
    last = [key for key in keys if fold(key.rpartition(".")[2]) == fold(name)]
    if len(last) == 1:
        return last[0]
    section = name.partition(".")[0]
    return name if any(key.startswith(f"{section}.") for key in keys) and "." in name else None


def fits(line: str, flags: Sequence[str]) -> bool:
    """Whether the options of `line` are among `flags`; other lines are for those of a run."""
    if not line.startswith("--"):
        return "--epochs" in flags
    options = [word for word in line.partition("  ")[0].split() if word.startswith("--")]
    return set(options) <= {*flags}


def _option_in(line: str, typed: str | None) -> str:
    """The first option of `line`; a setting, or what repeats `typed`, without the value."""
    repeats = shlex.quote("VALUE" if typed is None else typed) in line
    return line.split()[0] if repeats and re.match("--(?!set )", line) else meant(line)


def _with_value(options: Sequence[Option], flag: str, typed: str | None) -> str:
    option = next((option for option in options if option.flag == flag), None)
    if typed is None or option is None or option.metavar is None:
        return flag
    return f"{flag} {shlex.quote(typed)}"


def _family(argv: Sequence[str]) -> str | None:
    """The family that --model names in `argv`."""
    model = model_typed(argv)
    return model and split_model_name(model)[0]
