import json

import pytest

from gearshift.models.language.generate import read_prompts
from tests.models.errors import error_of


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


def test_a_row_in_the_formats_of_training_is_a_prompt_without_its_answer(prompts):
    talk = [{"role": role, "content": role} for role in ("user", "assistant")]
    shared = [{"from": role, "value": role} for role in ("human", "gpt", "human")]
    system = [("system", "be brief"), ("user", "why")]
    turns = [("user", "human"), ("assistant", "gpt"), ("user", "human")]
    for row, messages in (
        ({"prompt": "hi", "response": "secret"}, [("user", "hi")]),
        ({"prompt": "hi", "response": None}, [("user", "hi")]),
        ({"instruction": "sum", "input": "1 2", "output": ""}, [("user", "sum\n\n1 2")]),
        ({"system": "be brief", "prompt": "why"}, system),
        ({"text": "once"}, [("user", "once")]),
        ({"title": "hi"}, [("user", "hi")]),
        ({"messages": talk}, [("user", "user")]),
        ({"conversations": shared}, turns),
    ):
        assert prompts([row], title="request") == {"my-rows-1": messages}


def test_each_row_of_jsonl_and_csv_is_a_prompt_named_for_its_line(prompts):
    rows = [{"prompt": "one"}, {"prompt": "two"}]
    assert list(prompts(rows)) == ["my-rows-1", "my-rows-2"]
    found = prompts('prompt,id\none,1\n"tw\no",2\n', "a.csv")
    assert found == {"a-2": [("user", "one")], "a-3": [("user", "tw\no")]}


def test_each_object_of_a_json_array_is_a_prompt(prompts):
    rows = json.dumps([{"prompt": "one"}, {"prompt": "two"}], indent=1)
    assert prompts(rows, "a.json") == {"a-1": [("user", "one")], "a-2": [("user", "two")]}
    for content in ('{\n"prompt": null}', "[1]", "[{]"):
        assert "a.json" in error_of(prompts, content, "a.json").where
