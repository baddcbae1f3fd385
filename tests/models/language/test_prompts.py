"""Prompts in files, without their answers."""

import json

import pytest

from models.base import DataError
from models.language.generate import read_prompts


@pytest.fixture
def prompts(tmp_path):
    def read(content, name="my rows.jsonl", on_bad="stop", **declared):
        path = tmp_path / name
        path.write_text(
            content if isinstance(content, str) else "\n".join(map(json.dumps, content))
        )
        found = read_prompts(path, declared, on_bad)
        return {p.name: [(m.role, m.text) for m in p.messages] for p in found}

    return read


def test_a_text_file_is_one_prompt_without_its_last_line_end(prompts):
    assert prompts("def f():\n    \n\n", "a.txt") == {"a": [("user", "def f():\n    \n")]}
    assert prompts("User: hi", "README") == {"README": [("user", "User: hi")]}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"prompt": "hi"}, [("user", "hi")]),
        ({"prompt": "hi", "response": "secret"}, [("user", "hi")]),
        ({"prompt": "hi", "response": None}, [("user", "hi")]),
        ({"instruction": "sum", "input": "1 2", "output": ""}, [("user", "sum\n\n1 2")]),
        ({"system": "be brief", "question": "why"}, [("system", "be brief"), ("user", "why")]),
        ({"text": "once"}, [("user", "once")]),
        ({"title": "hi"}, [("user", "hi")]),
        (
            {"messages": [{"role": r, "content": r} for r in ("user", "assistant")]},
            [("user", "user")],
        ),
        (
            {"conversations": [{"from": f, "value": f} for f in ("human", "gpt", "human")]},
            [("user", "human"), ("assistant", "gpt"), ("user", "human")],
        ),
    ],
)
def test_a_row_in_the_formats_of_training_is_a_prompt_without_its_answer(prompts, row, messages):
    assert prompts([row], title="request") == {"my-rows-1": messages}


def test_each_row_of_jsonl_and_csv_is_a_prompt_named_for_its_line(prompts):
    rows = [{"prompt": "one"}, {"prompt": "two"}]
    assert list(prompts(rows)) == ["my-rows-1", "my-rows-2"]
    found = prompts('prompt,id\none,1\n"tw\no",2\n', "a.csv")
    assert found == {"a-2": [("user", "one")], "a-3": [("user", "tw\no")]}


def test_each_object_of_a_json_array_is_a_prompt(prompts):
    rows = json.dumps([{"prompt": "one"}, {"prompt": "two"}], indent=1)
    assert prompts(rows, "a.json") == {"a-1": [("user", "one")], "a-2": [("user", "two")]}
    for content, problem in (('{\n"prompt": 1}', "one object"), ("[1]", "int"), ("[{]", "JSON")):
        with pytest.raises(DataError) as error:
            prompts(content, "a.json")
        assert problem in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a"}\n{"prompt": 3}', "my rows.jsonl:2: prompt is int, not text"),
        ('{"prompt": "a"}\nhello', "my rows.jsonl:2: not JSON"),
        ('{"prompt": "a"}\n[1]', "my rows.jsonl:2: list, not an object"),
        ('{"wrong": "a"}\n{"prompt": "a"}', "my rows.jsonl:1: no column for a prompt among: wrong"),
        ('{"prompt": "a", "document": "b"}', "1 column is not read: document"),
        ("", "is empty\n  where         --input, 0 bytes"),
    ],
)
def test_a_row_that_is_no_prompt_is_an_error(prompts, content, message):
    with pytest.raises(DataError) as error:
        prompts(content)
    assert message in str(error.value)


def test_bad_rows_are_skipped_as_in_training(prompts):
    assert list(prompts('{"prompt": "a"}\n{"prompt": 3}', on_bad="skip")) == ["my-rows-1"]


def test_a_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="is not a file"):
        read_prompts(tmp_path, {}, "stop")
