"""Chats in today's formats are read whole, or refused with the row and the field."""

import json

import pytest

from models.common.config import declared_columns
from models.language.readers.corpus import read_corpus
from models.language.tokenizer import ByteTokenizer, prompt_and_answer
from tests.models.errors import error_of

USER = {"role": "user", "content": "What is 2 + 2?"}
FOUR = {"role": "assistant", "content": "four"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}


def write(tmp_path, *rows):
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def exchanges(path, columns=()):
    return list(read_corpus(path, None, "stop", declared_columns(columns)).records())


def pieces(exchange):
    """The text before an answer, and the answer, as the built-in form has them."""
    tokenizer = ByteTokenizer()
    both = prompt_and_answer(exchange.before, exchange.text, tokenizer)
    return tuple(tokenizer.decode(part) for part in both)


QUESTION = "User: What is 2 + 2?\nAssistant: "


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, FOUR]},
        {"prompt": [USER], "completion": [FOUR]},
        {"prompt": "What is 2 + 2?", "completion": "four"},
        {"prompt": [USER], "completion": "four"},
        {"messages": [{**USER, "content": [{"type": "text", "text": USER["content"]}]}, FOUR]},
        {"conversations": [{"from": "human", "value": USER["content"]},
                           {"from": "gpt", "value": "four"}]},
        {"messages": [{**USER, "weight": None}, {**FOUR, "weight": 1}], "id": 3},
    ],
)  # fmt: skip
def test_each_format_gives_the_same_pair(tmp_path, row):
    [exchange] = exchanges(write(tmp_path, row))
    assert pieces(exchange) == (QUESTION, "four")


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "messages[1].content"),
        ({"messages": [USER, {**FOUR, "role": "asistant"}]}, "messages[1].role"),
        ({"conversations": [{"from": "robot", "value": "a"}]}, "conversations[0].from"),
        ({"messages": [USER, {**FOUR, "tool_calls": [CALL]}]}, "messages[1].tool_calls"),
        ({"messages": [USER, {**FOUR, "weight": 0.5}]}, "messages[1].weight"),
        ({"prompt": [USER], "completion": []}, "completion"),
        ({"prompt": [{"role": "user"}], "completion": "a"}, "prompt[0].content"),
        ({"messages": [USER, {**FOUR, "content": [{"type": "image"}]}]}, "messages[1].content"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_with_its_field(tmp_path, row, field):
    error = error_of(read_corpus, write(tmp_path, {"messages": [USER, FOUR]}, row), None, "stop")
    assert f"chat.jsonl:2: {field} " in error.where
    assert "chat.jsonl:2, or skip" in error.fix
