"""Settings files: YAML 1.2 and JSON, each value with its line, and their errors."""

import json
import os

import pytest

from gearshift.launcher.config import settings_file
from gearshift.launcher.config.settings_file import Line, Unreadable
from gearshift.training.settings import nested
from tests.launcher.given import errors_of


def test_scalars_are_parsed_as_yaml_1_2():
    texts = ("on", "off", "yes", "no", "none", "1:30", "1_000", "0b101", "2026-01-31", "1.3B", "5%")
    for text, value in (
        *((text, text) for text in texts),
        *(("1e-6", 1e-6), ("1E3", 1000.0), (".5", 0.5), ("-3", -3), ("+3", 3), ("0x1F", 31)),
        *(("0o17", 15), ("0", 0), ("true", True), ("False", False), ("null", None), ("~", None)),
        *(("", None), ("'5'", "5"), ("[0.9, 1e-1, on]", [0.9, 0.1, "on"])),
        *(("{scale: 0.25}", {"scale": 0.25}), ("-.inf", float("-inf"))),
    ):
        read = settings_file.parse_yaml_value(text)
        assert (read, type(read)) == (value, type(value)), text
    assert settings_file.parse_yaml_value(".nan") != settings_file.parse_yaml_value(".nan")


def test_each_key_is_flat_and_has_its_line():
    lines = settings_file.parse_yaml(
        "# first\noptim: &o\n  lr: 1e-3\n\n  betas:\n    - 0.9\n    - 0.95\nother: *o\n"
        "a: {}\npromise: {parameters: {at_most: 1}}\nx.y: {scale: 2}\n",
        "mine.yaml",
    )
    assert list(lines) == [
        Line("optim.lr", 1e-3, "mine.yaml:3"),
        Line("optim.betas", [0.9, 0.95], "mine.yaml:5"),
        Line("other.lr", 1e-3, "mine.yaml:3"),
        Line("other.betas", [0.9, 0.95], "mine.yaml:5"),
        Line("promise", {"parameters": {"at_most": 1}}, "mine.yaml:10"),
        Line("x.y", {"scale": 2}, "mine.yaml:11"),
    ]


@pytest.mark.parametrize(
    ("text", "problem", "where"),
    [
        ("a:\n  b: 1\n  b: 2", "the key 'b' is set twice, first in line 2", (3, 3)),
        ("a: 017", "017 is no number: it has a leading 0, or too many digits", (1, 4)),
        ("a: b: c", "mapping values are not allowed in this context", (1, 5)),
        ("a: !!python/x []", "the tag tag:yaml.org,2002:python/x is not read here", (1, 4)),
        ("a: &x [*x]", "more than 50 levels of lists and mappings", (1, 4)),
        ("? [a]\n: 1", "a key that is not a scalar", (1, 3)),
        ("a: 1\nb: \x07", "a control character is not allowed", (2, 4)),
        ("a: \udcff", "a byte that is no UTF-8 text", (1, 4)),
        ('{"a": 1,\n "a": 2}', "the key 'a' is set twice, first in line 1", (2, 2)),
        ('{"a": [1', "did not find expected ',' or ']'", (2, 1)),
        ('{"a": "\\ud83d"}', "found invalid Unicode character escape code", (1, 10)),
    ],
)
def test_an_invalid_file_is_reported_with_line_and_column(text, problem, where):
    with pytest.raises(Unreadable) as raised:
        list(settings_file.parse_yaml(text))
    assert raised.value.args == (problem, *where)


TEXT = """{
\t"train": {"epochs": 3, "max_steps": null},
  "optim": {
    "betas": [0.9,
      0.95 ], "lr": 1e-3, "name": "\\u00e9 \\"x\\""
  }, "a": [], "b": {}, "c": [[true], {"d": false}]
}"""


def test_json_has_the_values_of_the_standard_library_and_lines():
    lines = list(settings_file.parse_yaml(TEXT))
    values = {line.key: line.value for line in lines}
    assert nested(values) | {"b": {}} == json.loads(TEXT)
    assert [line.where for line in lines] == [f":{n}" for n in (2, 2, 4, 5, 5, 6, 6)]


DEEP = 50_000
"""Levels that no parser can descend into."""
HOSTILE = {
    "deep.yaml": ("[" * DEEP, "more than 50 levels of lists and mappings"),
    "deep.json": ('{"a":' * DEEP, "more than 50 levels of lists and mappings"),
    "indented.yaml": ("\n".join(" " * n + "a:" for n in range(60)), "more than 50 levels"),
    "aliases.yaml": (
        "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 12)),
        "more than 10,000 values",
    ),
    "texts.yaml": (f"a: &a {'x' * 10**5}\nb: [{'*a,' * 99}]", "more than 10,000 values"),
    "digits.json": (f'{{"a": {"9" * 5000}}}', "too many digits"),
    "hexadecimal.yaml": (f"a: 0x{'f' * 5000}", "too many digits"),
    "pipe.yaml": ("", "is not a regular file"),
    "vast.yaml": ("a: b\n" * 300_000, "too many for settings"),
}


def test_a_file_that_would_never_be_read_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, (text, problem) in HOSTILE.items():
        if text:
            (tmp_path / name).write_text(text)
        assert problem in errors_of(settings_file.read_lines, tmp_path / name)[0].message, name
