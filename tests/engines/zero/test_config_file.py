"""DeepSpeed config files, parsed with the line of each key."""

import pytest

from engines.zero.config_file import FileError, parse

TEXT = """{
  "train_batch_size": 8, "zero_optimization": {
    "stage": 2,

    "note": "a \\"quoted\\" { brace, and \\\\",
    "list": [1, {"stage": 7}, [{"x": 1}], "a, b"],
    "offload_optimizer": {"device":
       "cpu"}
  },
  "fp16": {}
}
"""


def test_each_key_has_its_line_and_the_value_of_json():
    assert parse(TEXT).values["zero_optimization"]["list"][1] == {"stage": 7}
    assert parse(TEXT).lines == {
        "train_batch_size": 2,
        "zero_optimization": 2,
        "zero_optimization.stage": 3,
        "zero_optimization.note": 5,
        "zero_optimization.list": 6,
        "zero_optimization.offload_optimizer": 7,
        "zero_optimization.offload_optimizer.device": 7,
        "fp16": 10,
    }


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('{\n "a": 1,\n "b" 2}', 3, "is not JSON"),
        ("", 1, "is not JSON"),
        ("[1]", 1, "must contain a JSON object"),
        ('{"a": 1,\n "a": 2}', 2, "contains 'a' twice, first on line 1"),
        ('{"b": {"a": 1,\n "a": 2}}', 2, "contains 'b.a' twice, first on line 1"),
        ('{"a":' * 100_000, 1, "has too many levels"),
        ('{"a": NaN}', None, "contains NaN, which is not a JSON number"),
    ],
)
def test_a_broken_file_is_an_error_with_its_line(text, line, message):
    with pytest.raises(FileError, match=message) as error:
        parse(text)
    assert error.value.line == line
