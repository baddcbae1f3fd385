"""JSON Lines: a text, a request and answer, or messages in each line."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any

from models.common.faults import Faults
from models.language.readers.pairs import COLUMNS, columns_in, pair
from models.language.records import Conversation, Document, Turn

ROLES = ("system", "user", "assistant", "tool")
LEGAL = "; ".join(["text", *(f"{a}, {b}" for a, b in COLUMNS), "messages: [{role, content}]"])


def read_json_lines(
    text: str, name: str, faults: Faults
) -> tuple[list[Document], list[Conversation]]:
    """The documents and the conversations of a file, one object a line; blank lines are passed."""
    documents: list[Document] = []
    conversations: list[Conversation] = []
    for line, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        where = f"{name}, line {line}"
        try:
            row = json.loads(raw)
        except json.JSONDecodeError as error:
            faults.add(where, f"no JSON: {error.msg} at column {error.colno}")
            continue
        if not isinstance(row, dict):
            faults.add(where, f"{type(row).__name__}, not an object; legal keys  {LEGAL}")
        elif "messages" in row:
            if turns := _turns(row["messages"], where, faults):
                conversations.append(Conversation(turns, where))
        elif found := columns_in(row):
            if conversation := pair(row[found[0]], row[found[1]], where, faults):
                conversations.append(conversation)
        elif isinstance(row.get("text"), str) and row["text"].strip():
            documents.append(Document(f"{name}#{line:09}", row["text"]))
        else:
            keys = ", ".join(map(str, row)) or "none"
            faults.add(where, f"no usable text under the keys {keys}; legal  {LEGAL}")
    return documents, conversations


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
