"""Reads a settings file, YAML or JSON, as a flat list: dotted key, value, and file with line."""

from __future__ import annotations

import math
import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml

from gearshift.launcher.base.diagnostics import SettingsError, nearest_match

MAPPINGS = ("promise", "optim.groups")
"""Settings that hold names of the user's with values, no further settings."""
_WHOLE = tuple(f".{key}" for key in MAPPINGS)
CHANGES = {"scale", "at_least", "at_most", "smaller_of"}
"""What a mode's file may do to a default, instead of a value."""
_MAX_BYTES = 1 << 18
_MAX_VALUES = 10_000
_MAX_DEPTH = 50
"""Bounds of a file, far above those of real settings: a few aliases can stand for billions."""
_MAX_DIGITS = 1000
"""Of a number: Python reads a longer hexadecimal one, and then cannot print it."""
_SHOWN = 20
"""Characters of a number in a message."""
_LONG_TEXT = 100
"""Characters of a text that count as one more value."""


class Line(NamedTuple):
    """A setting of a file."""

    key: str
    value: Any
    where: str
    """`mine.yaml:12`: where its key stands, counted from 1."""


class Unreadable(Exception):
    """The text breaks the rules of its format: problem, line and column, counted from 1."""


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a tree by dotted key; a key of it may be dotted, too."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        is_value = not isinstance(value, Mapping) or f".{key}".endswith(_WHOLE)
        if is_value or (value and CHANGES.issuperset(value)):
            yield key, value
        else:
            yield from flat(value, f"{key}.")


def read_values(path: Path) -> dict[str, Any]:
    """The value of each dotted key of a file. Reads the disk. Raises SettingsError."""
    return {line.key: line.value for line in read_lines(path)}


def read_lines(path: Path, option: str = "--config", name: str | None = None) -> list[Line]:
    """The settings of a file that `option` names: YAML, of which JSON is a part.

    `name` is the file in messages. Reads the disk. Raises SettingsError if it does not exist or is
    invalid.
    """
    typed = f"{option} {path}"
    where = typed
    like = None
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            problem = "is not a regular file"
        elif status.st_size > _MAX_BYTES:
            problem = f"has {status.st_size:,} bytes, too many for settings: {_MAX_BYTES:,}"
        else:
            text = path.read_text("utf-8-sig", "surrogateescape")
            return list(parse_yaml(text, name or str(path)))
    except Unreadable as broken:
        cause, line, column = broken.args
        problem = f"cannot be read as YAML: {cause}"
        where = f"{path}:{line}:{column}"
    except FileNotFoundError:
        problem = f"does not exist ({path.absolute()})"
        like = nearest_file(path)
    except OSError as error:
        problem = f"cannot be read: {(error.strerror or str(error)).lower()}"
    raise SettingsError.of(
        f"{path} {problem}",
        value=str(path),
        where=where,
        did_you_mean=like,
        fix=f"{option} {shlex.quote(like)}" if like and option.startswith("-") else None,
        replaces=(typed,),
    )


def nearest_file(path: str | Path) -> str | None:
    """The file or folder beside `path`, which does not exist, with the nearest name. Reads disk."""
    path = Path(path)
    folder = Path(os.path.expanduser(path)).parent
    if not folder.is_dir():
        return None
    names = [name for name in os.listdir(folder) if name != path.name]  # it may be a link
    like = nearest_match(path.name, names)
    return like and str(path.parent / like)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Keeps every plain scalar a text, so that YAML 1.1 has no effect."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


_INT = re.compile(r"^([-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+)$")
_FLOAT = re.compile(r"^[-+]?((\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))$")
_WORDS = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "false": False,
    ".nan": math.nan,
}
"""In any case of their letters."""
_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}
_TOO_DEEP = f"more than {_MAX_DEPTH} levels of lists and mappings"
_LIBYAML_TOO_DEEP = "exceeded maximum nesting depth"
"""From 1,000 levels on, where it looks that far ahead; 0.2.5 has no such limit."""


def parse_yaml(text: str, name: str = "") -> Iterator[Line]:
    """The settings of a document of the file `name`. Raises Unreadable."""
    root = _compose(text)
    reader = _Reader()
    tree = None if root is None else reader.value(root)
    if tree is None:
        return
    if not isinstance(tree, dict):
        raise _at("its root is no mapping of keys to values", root.start_mark)
    for key, value in flat(tree):
        number, *others = reader.numbers[key]
        if others:  # both nested and dotted
            raise Unreadable(f"the key '{key}' is set twice, first in line {number}", others[0], 1)
        yield Line(key, value, f"{name}:{number}")


def parse_yaml_value(text: str) -> Any:
    """The value of `text` as YAML: `1e-6`, `on`, `[0.9, 0.95]`. Raises Unreadable."""
    root = _compose(text)
    return None if root is None else _Reader().value(root)


def read_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a table beside this file, which is a list of mappings. Reads the disk."""
    rows: list[dict[str, Any]] = parse_yaml_value(Path(__file__).with_name(name).read_text("utf-8"))
    return rows


def read_table(name: str, columns: Sequence[str]) -> Iterator[list[Any]]:
    """As `read_rows`, each with its values in the order of `columns`; None: one left out."""
    return ([row.get(column) for column in columns] for row in read_rows(name))


def _compose(text: str) -> Any:
    try:
        _check_depth(text)
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None
        problem = error.problem or error.context or "not understood"
        if problem == _LIBYAML_TOO_DEEP:
            problem = _TOO_DEEP
        raise _at(problem, mark) from None
    except UnicodeEncodeError as error:
        raise _after(text[: error.start], "a byte that is no UTF-8 text") from None
    except yaml.reader.ReaderError as error:
        raise _after(text[: error.position], "a control character is not allowed") from None


def _check_depth(text: str) -> None:
    """Raise Unreadable for what nodes are too deep for: libyaml ends the process there."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise _at(_TOO_DEEP, event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Reader:
    """Reads the nodes of one document; an alias counts as many values as it stands for."""

    def __init__(self) -> None:
        self.numbers: dict[str, list[int]] = {}
        """The lines of each dotted key, from 1."""
        self._count = 0

    def value(self, node: Any, path: str = "", depth: int = 0) -> Any:
        """The value of a node, which is below the dotted `path`. Raises Unreadable."""
        self._weigh(node, depth)
        if isinstance(node, yaml.MappingNode):
            tree = {}
            for key, child in node.value:
                mark = key.start_mark
                if not isinstance(key, yaml.ScalarNode):
                    raise _at("a key that is not a scalar", mark)
                numbers = self.numbers.setdefault(f"{path}{key.value}", [])
                if key.value in tree:
                    problem = f"the key '{key.value}' is set twice, first in line {numbers[-1]}"
                    raise _at(problem, mark)
                numbers.append(mark.line + 1)
                tree[key.value] = self.value(child, f"{path}{key.value}.", depth + 1)
            return tree
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{path}[].", depth + 1) for item in node.value]
        if node.style:  # quoted, or a block of text
            return node.value
        try:
            return parse_yaml_scalar(node.value)
        except ValueError as error:
            raise _at(str(error), node.start_mark) from None

    def _weigh(self, node: Any, depth: int) -> None:
        self._count += 1
        if isinstance(node.value, str):
            self._count += len(node.value) // _LONG_TEXT
        if node.tag not in _TAGS:
            raise _at(f"the tag {node.tag} is not read here", node.start_mark)
        if depth > _MAX_DEPTH:  # an alias that holds itself has no end
            raise _at(_TOO_DEEP, node.start_mark)
        if self._count > _MAX_VALUES:
            problem = f"more than {_MAX_VALUES:,} values, those of aliases counted"
            raise _at(problem, node.start_mark)


def _after(text: str, problem: str) -> Unreadable:
    return Unreadable(problem, text.count("\n") + 1, len(text) - text.rfind("\n"))


def _at(problem: str, mark: Any) -> Unreadable:
    return Unreadable(problem, mark.line + 1, mark.column + 1)


def parse_yaml_scalar(text: str) -> Any:
    """The value of a plain scalar in the core schema of YAML 1.2.

    Raises ValueError for a number that YAML 1.1 and YAML 1.2 read differently.
    """
    word = text.lower()
    if word in _WORDS:
        return _WORDS[word]
    if _INT.match(text):
        problem = f"{text[:_SHOWN]} is no number: it has a leading 0, or too many digits"
        if len(text) > _MAX_DIGITS:
            raise ValueError(problem)
        try:
            return int(text, 0)
        except ValueError:
            raise ValueError(problem) from None
    if _FLOAT.match(text):
        return float(word.replace(".inf", "inf"))
    return text
