"""Chats in today's formats are read whole."""

import json

import pytest

from models.common.config import declared_columns
from models.language.readers.corpus import read_corpus
from models.language.tokenizer import ByteTokenizer, prompt_and_answer

USER = {"role": "user", "content": "What is 2 + 2?"}
FOUR = {"role": "assistant", "content": "four"}


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
