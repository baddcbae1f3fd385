"""JSON is read as the standard library reads it, each key with its line."""

import json

import pytest

from launcher.config import settings_file
from launcher.config.settings_file import Unreadable, node_value

TEXT = """{
\t"train": {"epochs": 3, "max_steps": null},
  "optim": {
    "betas": [0.9,
      0.95 ], "lr": 1e-3, "name": "\\u00e9\\ud83d\\ude00 \\"x\\""
  }, "a": [], "b": {}, "c": [[true], {"d": false}]
}"""


def test_values_are_those_of_the_standard_library():
    assert node_value(settings_file.parse_json(TEXT)) == json.loads(TEXT)


def test_each_key_has_its_line():
    root = settings_file.parse_json(TEXT)
    assert root.value["train"].line == 2
    optim = root.value["optim"]
    assert (optim.line, optim.value["betas"].line, optim.value["lr"].line) == (3, 4, 5)
    assert [item.line for item in optim.value["betas"].value] == [4, 5]
    assert root.value["c"].value[1].value["d"].line == 6


@pytest.mark.parametrize(
    ("text", "problem", "place"),
    [
        ('{"a": 1,\n "a": 2}', "the key 'a' is set twice, first in line 1", (2, 2)),
        ('{"a": [1', "expecting ',' delimiter", (1, 9)),
        ("{'a': 1}", "expecting property name enclosed in double quotes", (1, 2)),
        ("", "expecting value", (1, 1)),
    ],
)
def test_what_breaks_the_rules_is_told_with_line_and_column(text, problem, place):
    with pytest.raises(Unreadable) as raised:
        settings_file.parse_json(text)
    assert raised.value.problem == problem
    assert (raised.value.line, raised.value.column) == place
