"""Messages of a conversation, as OpenAI, TRL and ShareGPT write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from models.language.readers.records import Turn

ROLES = ("system", "user", "assistant", "tool")
_ALIASES = {
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function": "tool",
    "function_call": "assistant",
    "developer": "system",
}
"""Roles of ShareGPT, and those of APIs that mean the same."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
_KEPT = ("name", "tool_call_id")
"""Fields that chat templates read beside role, content and tool_calls."""


class MessageError(ValueError):
    """A message that cannot be read: its field, and what is wrong with it."""


def turns_of(messages: Any, field: str) -> tuple[Turn, ...]:
    """The turns of a list of messages in `field`. Raises MessageError, which names the field."""
    if not isinstance(messages, list) or not messages:
        kind = "an empty list" if messages == [] else kind_of(messages)
        raise MessageError(f"{field} is {kind}, not a list of {{role, content}} or {{from, value}}")
    return tuple(_turn(message, f"{field}[{n}]") for n, message in enumerate(messages))


def tools_of(value: Any, field: str) -> str:
    """A list of tools, or its JSON, as JSON; empty: none. Raises MessageError."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise MessageError(f"{field} is text that is not JSON, not a list of tools") from None
    if value is None or value in ("", []):
        return ""
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise MessageError(f"{field} is {kind_of(value)}, not a list of tools")
    return json.dumps(value, ensure_ascii=False)


def answered(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The same turns, of which none is learned."""
    return tuple(replace(turn, learned=False) for turn in turns)


def kind_of(value: Any) -> str:
    """What a value is, for messages."""
    return {type(None): "null", str: "text", dict: "an object", list: "a list"}.get(
        type(value), type(value).__name__
    )


def _turn(message: Any, at: str) -> Turn:
    if not isinstance(message, dict):
        raise MessageError(f"{at} is {kind_of(message)}, not an object")
    is_sharegpt = "role" not in message and "from" in message
    role_key, content_key = ("from", "value") if is_sharegpt else ("role", "content")
    role = _role(message.get(role_key), f"{at}.{role_key}")
    for key in _REASONING:
        if message.get(key):
            raise MessageError(f"{at}.{key} is not read: put it into {content_key}, or remove it")
    calls = _calls(message, at) if role == "assistant" else []
    content = message.get(content_key)
    if content is None and calls:
        content = ""
    text = _text(content, f"{at}.{content_key}")
    if role == "assistant" and not text.strip() and not calls:
        raise MessageError(f"{at}.{content_key} is empty, and there are no tool_calls")
    extra = {key: message[key] for key in _KEPT if message.get(key) is not None}
    if calls:
        extra["tool_calls"] = calls
    weight = message.get("weight")
    if weight not in (None, 0, 1):
        raise MessageError(f"{at}.weight is {weight!r}; 0 (not learned) and 1 are read")
    return Turn(
        role, text, json.dumps(extra, ensure_ascii=False) if extra else "", learned=weight != 0
    )


def _role(value: Any, at: str) -> str:
    role = _ALIASES.get(str(value), value)
    if role in ROLES:
        return str(role)
    near = get_close_matches(str(value).lower(), ROLES, n=1)
    hint = f"did you mean {near[0]}" if near else f"allowed: {', '.join(ROLES)}"
    raise MessageError(f"{at} is {'null' if value is None else repr(value)}; {hint}")


def _text(content: Any, at: str) -> str:
    """The text of a content: itself, or the texts of a list of parts, by line."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise MessageError(f"{at} is {kind_of(content)}, not text")
    texts = []
    for number, part in enumerate(content):
        fields = part if isinstance(part, dict) else {}
        kind, text = fields.get("type", kind_of(part)), fields.get("text")
        if kind != "text" or not isinstance(text, str):
            raise MessageError(f"{at}[{number}] is {kind}, and only text is read")
        texts.append(text)
    return "\n".join(texts)


def _calls(message: Mapping[str, Any], at: str) -> list[dict[str, Any]]:
    """The calls of tools in a message, with arguments as objects where they are JSON."""
    calls, at = message.get("tool_calls"), f"{at}.tool_calls"
    if not calls and message.get("function_call"):
        calls, at = [{"function": message["function_call"]}], at.replace("tool_calls", "")
    if not calls:
        return []
    if not isinstance(calls, list):
        raise MessageError(f"{at} is {kind_of(calls)}, not a list")
    return [_call(call, f"{at}[{number}]") for number, call in enumerate(calls)]


def _call(call: Any, at: str) -> dict[str, Any]:
    fields = call if isinstance(call, dict) else {}
    function = fields.get("function", fields)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise MessageError(f"{at}.function.name is {kind_of(name)}, not the name of a tool")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            decoded = json.loads(arguments)
        except (ValueError, RecursionError):
            decoded = None
        arguments = decoded if isinstance(decoded, dict) else arguments
    wanted = {"name": name, "arguments": {} if arguments is None else arguments}
    call_id = {"id": fields["id"]} if fields.get("id") is not None else {}
    return {**call_id, "type": "function", "function": wanted}
