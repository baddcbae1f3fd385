"""Records of the readers: documents, conversations and their exchanges."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Document:
    """A text; each document is a group of its own and belongs to one split.

    A long document comes in consecutive parts of the same `group`.
    """

    group: str
    text: str


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; `role` is system, user, assistant or tool."""

    role: str
    text: str
    extra: str = ""
    """Its other fields that chat templates read, as JSON: tool_calls, name, tool_call_id."""
    learned: bool = True
    """Whether it counts in the loss, if it is an answer."""

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls of tools: {"type": "function", "function": {"name", "arguments"}}."""
        calls: list[dict[str, Any]] = (
            json.loads(self.extra).get("tool_calls", []) if self.extra else []
        )
        return calls

    @property
    def rendered(self) -> str:
        """Its text, and a line for each call: <tool_call>{"name": …, "arguments": …}</tool_call>"""
        calls = (json.dumps(call["function"], ensure_ascii=False) for call in self.calls)
        lines = [self.text, *(f"<tool_call>{call}</tool_call>" for call in calls)]
        return "\n".join(line for line in lines if line)


@dataclass(frozen=True)
class Conversation:
    """Turns in order; `where` is the file and line."""

    turns: tuple[Turn, ...]
    where: str
    group: str = ""
    """A group belongs to one split. Empty: the first request is the group."""
    label: str = ""
    """Kind of request; the noise control permutes between kinds. Empty: the request itself."""
    tools: str = ""
    """The tools that the answers may call, as JSON. Empty: none."""


Record = Document | Conversation


@dataclass(frozen=True)
class Exchange:
    """One answer and all turns before it."""

    before: tuple[Turn, ...]
    reply: Turn
    group: str
    label: str
    where: str
    tools: str = ""

    @property
    def answer(self) -> str:
        """The text of the answer."""
        return self.reply.rendered.strip()
