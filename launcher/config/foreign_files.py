"""Settings files of other programs: YAML with its repeated keys, a shell line, a Python class."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.config import settings_file
from launcher.config.foreign_words import SEVERAL, families_of, words_for
from launcher.config.model_lines import pretrained_line
from launcher.config.schema import FIRST_RUN, setting_infos
from launcher.config.settings_file import Unreadable, compose_yaml, parse_yaml_scalar

_FEW = 3
"""Words of an original in a file of ours: each has an error with the line to write."""
_KNOWN = 2
"""Words of another tool that make a file one of its files."""
_OF_DEEPSPEED = {
    "zero_optimization",
    "train_micro_batch_size_per_gpu",
    "zero_allow_untested_optimizer",
}
"""Keys that only the JSON of DeepSpeed has."""
_YAML, _SHELL = (".yaml", ".yml", ".json"), (".sh", ".bash")
_SWITCHES = {"yes": True, "on": True, "no": False, "off": False}
"""Words that the originals' YAML reads as a switch."""
_OPTION = re.compile(r"(?:^|\s)--[A-Za-z]")
_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Line:
    """A setting in a file of another program."""

    number: int
    """Where it begins, counted from 1."""
    last: int
    """Where its value ends."""
    key: str
    """Dotted."""
    value: Any
    comment: str = ""
    """What the user wrote behind it, with its `#`."""
    unused: str = ""
    """Why the other program does not use it."""

    @property
    def name(self) -> str:
        """The key's last part."""
        return self.key.rpartition(".")[2]


@dataclass(frozen=True)
class ForeignFile:
    """A file with its lines, and the settings in them in order."""

    lines: Sequence[str]
    settings: Sequence[Line]

    @property
    def families(self) -> list[str]:
        """The family whose original has such a file; none or several if that is unclear."""
        return families_of([line.key for line in self.settings])

    @property
    def is_of_other_tool(self) -> bool:
        """Whether half of its keys are words of another tool, or of several originals."""
        known = [line for line in self.settings if any(_words(line.key)) or any(_words(line.name))]
        return len(known) >= _KNOWN and len(known) * 2 >= len(self.settings)

    def line_instead(self, path: Path) -> str | None:
        """The options that take the file as it is: of DeepSpeed or of transformers."""
        values = {line.key: line.value for line in self.settings}
        if any(key.partition(".")[0] in _OF_DEEPSPEED for key in values):
            stage = values.get("zero_optimization.stage", 2)
            return f"--engine zero{stage} --ds-config {shlex.quote(str(path))}"
        if {"model_type", "architectures"} <= {*values}:
            return pretrained_line(str(path))
        return None


def _words(key: str) -> Iterator[object]:
    return words_for(key, SEVERAL)


def read(path: Path, option: str) -> ForeignFile:
    """The file that `option` names. Reads the disk; raises SettingsError."""
    return _parsed(path, settings_file.read_text(path, option))


def _parsed(path: Path, text: str) -> ForeignFile:
    form, parse = "YAML", _of_yaml
    if path.suffix == ".py":
        form, parse = "Python", _of_python
    elif path.suffix not in _YAML and (path.suffix in _SHELL or _OPTION.search(text)):
        form, parse = "a shell script", _of_shell
    try:
        lines = list(parse(text.expandtabs() if path.suffix == ".json" else text))
    except Unreadable as error:
        where = f"{path}:{error.line}:{error.column}"
        message = f"{path} cannot be read as {form}: {error.problem}"
        raise SettingsError.of(message, where=where) from None
    return ForeignFile(text.splitlines(), lines)


def as_config(path: Path, text: str) -> Diagnostic | None:
    """The error of a whole file of another program, with its `text`, as --config.

    None: it is none. Reads the disk.
    """
    try:
        file = _parsed(path, text)
    except SettingsError:
        return None  # of no other program, or broken: the reader of settings files says how
    families = file.families
    keys = {line.key for line in file.settings}
    others = keys - {*setting_infos(families[0] if len(families) == 1 else FIRST_RUN[0])}
    whose = f"the original of {families[0]}" if len(families) == 1 else "another tool"
    if (line := file.line_instead(path)) is not None:
        allowed, fix = "a settings file of this program", line
    elif len(others) <= _FEW or len(others) * 2 <= len(keys):
        return None
    elif len(families) == 1 or file.is_of_other_tool:
        allowed = f"the file that this command writes: {converted_name(path)}"
        fix = f"{PROGRAM} convert {shlex.quote(str(path))}"
    else:
        return None
    return Diagnostic(
        f"{path} is a settings file of {whose}: {len(others)} of its {len(keys)} keys are no "
        "settings here",
        value=str(path),
        where=f"--config {path}",
        allowed=allowed,
        fix=fix,
    )


def converted_name(path: Path) -> str:
    """The name of the file that `convert` writes in the current folder."""
    return f"{path.stem}-gearshift.yaml"


def _of_yaml(text: str) -> Iterator[Line]:
    root = compose_yaml(text)
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise Unreadable("its root is not a mapping", 1, 1)
    yield from _leaves(root, "", "", text.splitlines())


def _leaves(node: Any, prefix: str, unused: str, lines: Sequence[str]) -> Iterator[Line]:
    last = {key.value: key for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
    for key, child in node.value:
        number = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise Unreadable("a key that is not a scalar", number, key.start_mark.column + 1)
        name, reason = f"{prefix}{key.value}", unused
        if not reason and last[key.value] is not key:
            again = last[key.value].start_mark.line + 1
            reason = f"{name} is set again in line {again}, which counts"
        if isinstance(child, yaml.MappingNode) and child.value:
            yield from _leaves(child, f"{name}.", reason, lines)
            continue
        end, is_alias = child.end_mark, child.start_mark.line + 1 < number
        ends = number if is_alias else max(number, end.line + (end.column > 0))
        rest = lines[number - 1][end.column :].strip() if end.line + 1 == number else ""
        comment = rest if rest.startswith("#") else ""
        yield Line(number, ends, name, _value(child), comment, reason)


def _value(node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {key.value: _value(child) for key, child in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    return node.value if node.style else _scalar(node.value)


def _scalar(text: str) -> Any:
    try:
        return _SWITCHES.get(text.lower(), parse_yaml_scalar(text))
    except ValueError:
        return text


def _of_shell(text: str) -> Iterator[Line]:
    """The options of all commands; variables that the script sets are filled in."""
    variables: dict[str, str] = {}

    def filled(word: str) -> str:
        return _VARIABLE.sub(lambda at: variables.get(at[1] or at[2], at[0]), word)

    for command in _commands(text):
        while command and (match := _ASSIGNMENT.fullmatch(command[0][1])):
            variables[match["name"]] = filled(match["value"])
            command = command[1:]
        words = [(number, filled(word)) for number, word in command]
        while words:
            number, word = words.pop(0)
            if not _OPTION.match(word):
                continue
            name, is_joined, value = word[2:].partition("=")
            values, last = [value] if is_joined else [], number
            while words and not is_joined and not words[0][1].startswith("--"):
                last, value = words.pop(0)
                values.append(value)
            scalars = [_scalar(value) for value in values]
            unset = [value for value in values if _VARIABLE.search(value)]
            unused = f"{unset[0]} has a variable that the file does not set" if unset else ""
            one: Any = scalars[0] if scalars else True
            yield Line(number, last, name, scalars if scalars[1:] else one, unused=unused)


def _commands(text: str) -> Iterator[list[tuple[int, str]]]:
    """The words of each command, with their line numbers; a backslash continues a line."""
    words: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            line_words = shlex.split(line.rstrip().removesuffix("\\"), comments=True)
        except ValueError as error:
            raise Unreadable(str(error).lower(), number, 1) from None
        words += [(number, word) for word in line_words if word != "export"]
        if not line.rstrip().endswith("\\"):
            yield words
            words = []
    yield words


def _of_python(text: str) -> Iterator[Line]:
    """The values of names of a module and its classes, such as the fields of a data class."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        at = (getattr(error, "lineno", None) or 1, getattr(error, "offset", None) or 1)
        raise Unreadable(getattr(error, "msg", str(error)), *at) from None
    classes = [node.body for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    for node in (node for body in (module.body, *classes) for node in body):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        try:
            value, unused = ast.literal_eval(node.value), ""
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            value, unused = ast.unparse(node.value), "its value is computed by code"
        value = list(value) if isinstance(value, tuple | set) else value
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name):
                last = node.end_lineno or node.lineno
                yield Line(node.lineno, last, target.id, value, unused=unused)
