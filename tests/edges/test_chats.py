"""Chats in today's formats are read whole, or refused with the row and the field."""

import json
import re

import pytest

from models.base import DataError
from models.common.table import declared_columns
from models.language.generate import read_prompts, tokens
from models.language.readers.corpus import read_corpus
from models.language.tokenizer import ByteTokenizer, prompt_and_answer
from tests.models.errors import error_of

USER = {"role": "user", "content": "What is 2 + 2?"}
FOUR = {"role": "assistant", "content": "four"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "name": "add", "content": "4"}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
RENDERED = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 2}}</tool_call>'


def write(tmp_path, *rows):
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def exchanges(path, columns=()):
    corpus = read_corpus(path, None, "stop", declared_columns(columns))
    return [exchange for _, exchange in corpus.exchanges()]


def pieces(exchange):
    """The text before an answer, and the answer, as the built-in form has them."""
    tokenizer = ByteTokenizer()
    both = prompt_and_answer(exchange.before, exchange.reply, tokenizer, exchange.tools)
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
        {"messages": [USER, {**FOUR, "tool_calls": [], "refusal": None}], "tools": []},
    ],
)  # fmt: skip
def test_each_format_gives_the_same_pair(tmp_path, row):
    [exchange] = exchanges(write(tmp_path, row))
    assert pieces(exchange) == (QUESTION, "four")


def test_calls_of_tools_are_answers_and_results_are_not(tmp_path):
    path = write(tmp_path, {"messages": [USER, CALLS, RESULT, FOUR], "tools": TOOLS})
    first, second = exchanges(path)
    start = f"<tools>{json.dumps(TOOLS)}</tools>\n{QUESTION}"
    assert pieces(first) == (start, RENDERED)
    assert pieces(second) == (f"{start}{RENDERED}\n<output>4</output>\nAssistant: ", "four")


@pytest.mark.parametrize(
    "message",
    [
        {**CALLS, "content": ""},
        {**CALLS, "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}]},
        {**CALLS, "tool_calls": [CALL["function"]]},
        {"role": "assistant", "content": None, "function_call": CALL["function"]},
        {**CALLS, "content": "I add."},
    ],
)
def test_calls_are_read_as_apis_write_them_and_may_follow_a_text(tmp_path, message):
    [exchange] = exchanges(write(tmp_path, {"messages": [USER, message]}))
    text = "I add.\n" if message["content"] else ""
    assert pieces(exchange) == (QUESTION, f"{text}{RENDERED}")


def test_only_answers_of_the_completion_and_not_those_of_weight_0_are_learned(tmp_path):
    five, no = {"role": "assistant", "content": "five"}, {"role": "user", "content": "No."}
    for row in (
        {"prompt": [USER, five, no], "completion": [FOUR]},
        {"messages": [USER, {**five, "weight": 0}, no, FOUR]},
    ):
        [exchange] = exchanges(write(tmp_path, row))
        assert exchange.answer == "four" and exchange.before[1].text == "five"


def test_developer_is_the_system(tmp_path):
    row = {"messages": [{"role": "developer", "content": "Be brief."}, USER, FOUR]}
    [exchange] = exchanges(write(tmp_path, row))
    assert pieces(exchange)[0] == f"<system>Be brief.</system>\n{QUESTION}"


def test_chats_that_differ_in_their_calls_alone_are_no_duplicates(tmp_path):
    other = json.loads(json.dumps(CALLS).replace("2", "3"))
    rows = ({"messages": [USER, calls, RESULT, FOUR]} for calls in (CALLS, other))
    assert len(exchanges(write(tmp_path, *rows))) == 3  # the first request is the same


@pytest.mark.parametrize(
    ("row", "problem", "field"),
    [
        ({"messages": [USER, {"role": "assistant", "content": None}]},
         "messages[1].content is null, not text", "messages[1].content"),
        ({"messages": [USER, {**FOUR, "content": " "}]},
         "messages[1].content is empty, and there are no tool_calls", "messages[1].content"),
        ({"messages": [USER, {**FOUR, "role": "asistant"}]},
         "messages[1].role is 'asistant'; did you mean assistant", "messages[1].role"),
        ({"conversations": [{"from": "robot", "value": "a"}]},
         "conversations[0].from is 'robot'", "conversations[0].from"),
        ({"messages": [USER, {**CALLS, "tool_calls": [{"function": {}}]}]},
         "messages[1].tool_calls[0].function.name is null", "tool_calls[0].function.name"),
        ({"messages": [USER, {**FOUR, "weight": 0.5}]},
         "messages[1].weight is 0.5; 0 (not learned) and 1 are read", "messages[1].weight"),
        ({"messages": [USER, {**FOUR, "reasoning_content": "2 and 2"}]},
         "messages[1].reasoning_content is not read", "messages[1].reasoning_content"),
        ({"messages": [USER, FOUR], "tools": 3}, "tools is int, not a list of tools", "tools"),
        ({"prompt": [USER], "completion": []}, "completion is an empty list", "completion"),
        ({"prompt": [{"role": "user"}], "completion": "a"},
         "prompt[0].content is null, not text", "prompt[0].content"),
        ({"messages": [USER, {**FOUR, "content": [{"type": "image"}]}]},
         "messages[1].content[0] is image, and only text is read", "messages[1].content[0]"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_named_with_its_field(tmp_path, row, problem, field):
    error = error_of(read_corpus, write(tmp_path, {"messages": [USER, FOUR]}, row), None, "stop")
    assert f"chat.jsonl:2: {problem}" in error.where
    assert re.search(rf"correct .*{re.escape(field)} in chat.jsonl:2, or skip", error.fix)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, "good"),
        ({"prompt": [USER], "chosen": [FOUR], "rejected": [{**FOUR, "content": "5"}]}, "four"),
        ({"chosen": [USER, FOUR], "rejected": [USER, FOUR], "score_chosen": 1}, "four"),
        ({"prompt": "q", "chosen": [USER, FOUR], "rejected": [USER, FOUR]}, "four"),
        ({"messages": [USER, FOUR], "chosen": [USER, FOUR], "rejected": [USER]}, "four"),
    ],
)
def test_preferences_are_refused_and_the_line_to_paste_reads_the_chosen(tmp_path, row, answer):
    path = write(tmp_path, row)
    with pytest.raises(DataError, match="'chosen' and 'rejected' are preferences") as error:
        exchanges(path)
    [columns] = re.findall(r"data\.columns=\[(.*)\]", error.value.fix)
    [exchange] = exchanges(path, columns.split(", "))
    assert exchange.answer == answer


def test_labels_of_good_and_bad_answers_are_refused(tmp_path):
    row = {"prompt": "q", "completion": "bad", "label": False}
    with pytest.raises(DataError, match="'label' tells good answers from bad ones"):
        exchanges(write(tmp_path, row))


@pytest.mark.parametrize(
    ("row", "before"),
    [
        ({"prompt": [USER]}, ""),
        ({"messages": [USER]}, ""),
        ({"prompt": [USER], "completion": [FOUR]}, ""),
        ({"prompt": [USER], "tools": TOOLS}, f"<tools>{json.dumps(TOOLS)}</tools>\n"),
    ],
)
def test_prompts_of_each_format_are_those_of_training(tmp_path, row, before):
    [prompt] = read_prompts(write(tmp_path, row), {}, "stop")
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokens(prompt, tokenizer, is_request=True)) == before + QUESTION


def test_a_prompt_keeps_the_calls_of_its_tools(tmp_path):
    [prompt] = read_prompts(write(tmp_path, {"messages": [USER, CALLS, RESULT]}), {}, "stop")
    tokenizer = ByteTokenizer()
    assert RENDERED in tokenizer.decode(tokens(prompt, tokenizer, is_request=True))
