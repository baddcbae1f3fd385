"""The setting data.columns: what columns of a table mean, such as "Level (dB)=intensity"."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence

IGNORE = "ignore"
"""The meaning of a column that is not read."""
_IS_PLAIN = re.compile(r"[^\[\]{},:#\"'&*!|>%@`]+")
"""What needs no quotes in a list of YAML."""


def declared_columns(columns: Sequence[str]) -> dict[str, str]:
    """The meaning of each column of the setting, by its name in lower case."""
    parts = (column.rpartition("=") for column in columns)
    return {name.strip().lower(): meaning for name, _, meaning in parts}


def renamed(header: Sequence[object], declared: Mapping[str, str]) -> list[str]:
    """The names of the columns of a table, replaced by their meanings; empty if ignored."""
    names = [str("" if name is None else name).strip() for name in header]
    meanings = (declared.get(name.lower(), name) for name in names)
    return ["" if meaning == IGNORE else meaning for meaning in meanings]


def columns_option(meanings: Mapping[str, str]) -> str:
    """The option that sets the meaning of each column, quoted for a shell."""
    return meanings_option("data.columns", meanings)


def meanings_option(key: str, meanings: Mapping[str, str]) -> str:
    """The option that sets `key` to the meaning of each name, quoted for a shell."""
    items = (f"{name}={meaning}" for name, meaning in meanings.items())
    quoted = (i if _IS_PLAIN.fullmatch(i) else json.dumps(i, ensure_ascii=False) for i in items)
    value = f"{key}=[{', '.join(quoted)}]"
    return f"--set {shlex.quote(value)}"
