"""Settings files: YAML 1.2 and JSON, each value with its line, and their errors."""

import json
import os

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.config import settings_file
from launcher.config.settings_file import Unreadable, node_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("0x1F", 31),
        ("0o17", 15),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("none", "none"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b101", "0b101"),
        ("2026-01-31", "2026-01-31"),
        ("1.3B", "1.3B"),
        ("5%", "5%"),
        ("'5'", "5"),
        ("[0.9, 1e-1, on]", [0.9, 0.1, "on"]),
        ("{scale: 0.25}", {"scale": 0.25}),
    ],
)
def test_scalars_are_parsed_as_yaml_1_2(text, value):
    read = settings_file.parse_yaml_value(text)
    assert read == value
    assert type(read) is type(value)


def test_infinity_and_nan_are_numbers():
    assert settings_file.parse_yaml_value("-.inf") == float("-inf")
    assert settings_file.parse_yaml_value(".nan") != settings_file.parse_yaml_value(".nan")


def test_each_key_has_its_line_and_each_item_its_own():
    root = settings_file.parse_yaml(
        "# first\noptim:\n  lr: 1e-3\n\n  betas:\n    - 0.9\n    - 0.95\n"
    )
    optim = root.value["optim"]
    assert optim.line == 2
    assert optim.value["lr"].line == 3
    betas = optim.value["betas"]
    assert (betas.line, [item.line for item in betas.value]) == (5, [6, 7])


def test_an_alias_stands_for_what_it_names():
    root = settings_file.parse_yaml("train: &t {epochs: 3}\nother: *t\n")
    assert node_value(root) == {"train": {"epochs": 3}, "other": {"epochs": 3}}


@pytest.mark.parametrize(
    ("text", "problem", "where"),
    [
        ("a: 1\na: 2", "the key 'a' is set twice, first in line 1", (2, 1)),
        ("a:\n  b: 1\n  b: 2", "the key 'b' is set twice, first in line 2", (3, 3)),
        ("a: 017", "017 has two meanings, by its leading 0; write 17, or as a text '017'", (1, 4)),
        ("a: -08", "-08 has two meanings, by its leading 0; write -8, or as a text '-08'", (1, 4)),
        ("a: b: c", "mapping values are not allowed in this context", (1, 5)),
        ("a: 1\n\tb: 2", "found a tab character that violates indentation", (2, 1)),
        ("a: !!python/object:os.system x", None, (1, 4)),
        ("a: &x [*x]", "an alias that holds itself", (1, 4)),
        ("? [a]\n: 1", "a key that is not a scalar", (1, 3)),
        ("a: 1\n---\nb: 2", "but found another document", (2, 1)),
        ("a: 1\nb: \x07", "a control character is not allowed", (2, 4)),
    ],
)
def test_invalid_yaml_is_reported_with_line_and_column(text, problem, where):
    with pytest.raises(Unreadable) as raised:
        settings_file.parse_yaml(text)
    assert (raised.value.line, raised.value.column) == where
    assert problem is None or raised.value.problem == problem


def test_tags_construct_no_objects():
    with pytest.raises(Unreadable, match="is not read here"):
        settings_file.parse_yaml("a: !!python/object/apply:os.getcwd []")


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
    ("text", "problem", "where"),
    [
        ('{"a": 1,\n "a": 2}', "the key 'a' is set twice, first in line 1", (2, 2)),
        ('{"a": [1', "expecting ',' delimiter", (1, 9)),
        ("{'a': 1}", "expecting property name enclosed in double quotes", (1, 2)),
        ("", "expecting value", (1, 1)),
    ],
)
def test_invalid_json_is_reported_with_line_and_column(text, problem, where):
    with pytest.raises(Unreadable) as raised:
        settings_file.parse_json(text)
    assert raised.value.problem == problem
    assert (raised.value.line, raised.value.column) == where


DEEP = 150_000
"""Levels that no parser can descend into."""
HOSTILE = {
    "deep.yaml": ("[" * DEEP, "more than 50 levels of lists and mappings"),
    "deep.json": ('{"a":' * DEEP, "more than 50 levels of lists and mappings"),
    "indented.yaml": ("\n".join(" " * n + "a:" for n in range(60)), "more than 50 levels"),
    "aliases.yaml": (
        "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 12)),
        "more than 100,000 values",
    ),
    "vast.yaml": ("a: b\n" * 300_000, "too many for settings"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_would_never_be_read_is_refused_at_once(name, tmp_path):
    text, problem = HOSTILE[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError) as error:
        settings_file.read_settings_file(tmp_path / name)
    assert problem in error.value.diagnostics[0].message


def test_a_pipe_is_refused_without_being_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(SettingsError, match="is not a regular file"):
        settings_file.read_settings_file(tmp_path / "pipe.yaml")
