import json

import pytest

from tests.models.language.reading import error_text, exchanges, pairs, read, write

ROWS = [{"prompt": f"ask {i}", "response": f'answer {i}, \\ ["]'} for i in range(40)]


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_gives_the_rows_of_json_lines(tmp_path, indent):
    expected = read(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, ROWS))))
    found = read(write(tmp_path / "a.json", json.dumps(ROWS, indent=indent)))
    assert pairs(found) == pairs(expected) and len(found) == 40


def test_a_row_of_an_array_has_its_number_and_invalid_ones_can_be_skipped(tmp_path):
    content = '\n[\n {"prompt": "a",\n  "response": "b"},\n\n {"prompt": "c", "response": "d"}]\n'
    found = exchanges(read(write(tmp_path / "a.json", content)))
    assert [exchange.where for exchange in found] == ["a.json:1", "a.json:2"]
    content = '[{"prompt": "a", "response": "b"},\n7]'
    path = write(tmp_path / "a.json", content)
    assert "a.json:2: int, not an object" in error_text(path)
    assert len(read(path, "skip")) == 1


@pytest.mark.parametrize(
    ("content", "problem", "line"),
    [
        ('[{"text": "a"},\n{"text": }]', "Expecting value at column 10", 2),
        ('[{"text": "a"}\n{"text": "b"}]', "Expecting ',' delimiter at column 1", 2),
        ('[{"text": "a"},\n{"text": "b', "Unterminated string starting at column 10", 2),
        ('[{"text": "a"}]\n[]', "Extra data at column 1", 2),
        ('[{"text": "\\ud800"}]', "half of a surrogate pair", None),
    ],
)
def test_an_invalid_array_is_an_error_with_line_and_column(tmp_path, content, problem, line):
    message = error_text(write(tmp_path / "a.json", content))
    assert message.startswith(f"'a.json' is not JSON: {problem}")
    assert ("a.json" if line is None else f"a.json:{line}") in message


def test_objects_by_line_in_a_json_file_are_json_lines(tmp_path):
    path = write(tmp_path / "a.json", "\n".join(map(json.dumps, ROWS)))
    assert len(read(path)) == 40
    long = [{"text": "long " * 300_000}, {"text": "short"}]
    assert len(read(write(path, "\n".join(map(json.dumps, long))))) == 2
