"""JSON Lines: a text, a request and answer, or messages in each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from models.common.faults import Faults
from models.language.text.readers.pairs import COLUMNS, columns_in, pair
from models.language.text.readers.parts import in_parts
from models.language.text.readers.text_file import TextFile
from models.language.text.records import Conversation, Document, Record, Turn

ROLES = ("system", "user", "assistant", "tool")
LEGAL = "; ".join(["text", *(f"{a}, {b}" for a, b in COLUMNS), "messages: [{role, content}]"])


def read_json_lines(file: TextFile, name: str, faults: Faults) -> Iterator[Record]:
    """The documents and conversations of a file, one object a line; blank lines are passed."""
    for line, raw in enumerate(file.lines(), start=1):
        if not raw.strip():
            continue
        where = f"{name}, line {line}"
        row = _object(raw, where, faults)
        if row is None:
            continue
        if "messages" in row:
            if turns := _turns(row["messages"], where, faults):
                yield Conversation(turns, where)
        elif found := columns_in(row):
            if conversation := pair(row[found[0]], row[found[1]], where, faults):
                yield conversation
        elif isinstance(row.get("text"), str) and row["text"].strip():
            yield from (Document(f"{name}#{line:09}", part) for part in in_parts(row["text"]))
        else:
            keys = ", ".join(map(str, row)) or "none"
            faults.add(where, f"no usable text under the keys {keys}; legal  {LEGAL}")


def _object(raw: str, where: str, faults: Faults) -> dict[str, Any] | None:
    """The object of a line; None and a fault if it is none, or holds what is no text."""
    try:
        row = json.loads(raw)
        if "\\u" in raw:
            json.dumps(row, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        faults.add(where, f"no JSON: {error.msg} at column {error.colno}")
    except UnicodeEncodeError:
        faults.add(where, "half of a surrogate pair (\\ud800 to \\udfff), which is no character")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; deep nesting
        faults.add(where, f"no JSON: {error}")
    else:
        if isinstance(row, dict):
            return row
        faults.add(where, f"{type(row).__name__}, not an object; legal keys  {LEGAL}")
    return None


def _turns(messages: Any, where: str, faults: Faults) -> tuple[Turn, ...] | None:
    if not isinstance(messages, list) or not messages:
        faults.add(where, "messages is no list of {role, content}")
        return None
    turns = []
    for number, message in enumerate(messages, start=1):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ROLES:
            near = get_close_matches(str(role).lower(), ROLES, n=1)
            hint = f"; nearest  {near[0]}" if near else f"; legal  {', '.join(ROLES)}"
            faults.add(where, f"message {number}: {role!r} is no role{hint}")
            return None
        if not isinstance(content, str) or (role == "assistant" and not content.strip()):
            faults.add(where, f"message {number}: the content is empty or no text")
            return None
        turns.append(Turn(role, content))
    return tuple(turns)
