"""The command `convert`: write a settings file from one of an original code base."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.base import exit_codes
from launcher.base.diagnostics import OFF, PROGRAM, SettingsError, counted, fold, plain, shown
from launcher.commands.new_task import write_file
from launcher.config import machine
from launcher.config.command_line import RUN, CommandLine, parse
from launcher.config.foreign_files import ForeignFile, Line, converted_name, read
from launcher.config.foreign_words import OTHERS, REMOVE, SEVERAL, Word, word_files, words_for
from launcher.config.foreign_words import value_of as value_here
from launcher.config.layers import merge_layers
from launcher.config.model_lines import fetched
from launcher.config.options import names
from launcher.config.provenance import FILES_LAYER, Origin, TypedEntry
from launcher.config.schema import FIRST_RUN, PRETRAINED, SettingInfo, replaces_size, setting_infos
from launcher.config.settings_file import Unreadable, parse_yaml_value
from models.catalog import split_model_name

_TRACK = "track"
_LENGTHS = ("train.epochs", "train.max_steps")
_SECRET = re.compile(r"(api_?key|token|secret|password)$", re.IGNORECASE)


@dataclass(frozen=True)
class ConvertedSetting:
    """A setting of the original, and the one here."""

    line: Line
    key: str | None = None
    """None: the line is dropped."""
    value: Any = None
    reason: str = ""
    """Why it is dropped."""
    is_open: bool = False
    """Whether the user may want to do something about a dropped line."""
    word: Word | None = None

    def dropped(self, reason: str, is_open: bool = False) -> ConvertedSetting:
        """The same line without a setting here."""
        return replace(self, key=None, reason=reason, is_open=is_open)

    @property
    def there(self) -> str:
        """The setting as the original has it, in one line; without the value of a secret."""
        value = "…" if _SECRET.search(self.line.name) and self.line.value else self.line.value
        return f"{self.line.key}: {plain(value)}".replace("\n", " ")


def main(command_line: CommandLine) -> int:
    """Write the file and print the command that trains with it; the exit code.

    Raises SettingsError, with nothing written.
    """
    path = Path(command_line.argument)
    file = read(path, f"{PROGRAM} convert")
    family, whose = _family(file, path, command_line.args.model)
    rows = translate(file.settings, family, has_gpu=machine.detect_machine().device != "cpu")
    target = command_line.out or Path(converted_name(path))
    where = f"--out {target}" if command_line.out else "the current folder"
    if target.exists():
        numbered = (target.with_stem(f"{target.stem}-{number}") for number in range(2, 1000))
        free = next(path for path in numbered if not path.exists())
        raise SettingsError.of(
            f"{target} already exists",
            value=str(target),
            where=where,
            allowed="a new file",
            fix=f"{PROGRAM} convert {shlex.quote(path.name)} --out {shlex.quote(str(free))}",
        )
    text = [*_head(rows, family, path, whose), "", *_body(file, rows)]
    write_file(target, "\n".join(text) + "\n", where)
    command = f"{PROGRAM} --config {shlex.quote(str(target))}"
    dropped = [row for row in rows if row.key is None]
    if command_line.as_json:
        content = {
            "original": family,
            "file": str(target),
            "command": command,
            "settings": {row.key: row.value for row in rows if row.key is not None},
            "dropped": [
                {"line": row.line.number, "setting": row.there, "reason": row.reason}
                for row in dropped
            ],
        }
        print(json.dumps(content, indent=2))
        return exit_codes.DONE
    print(f"{path}: settings of {whose}")
    print(f"wrote {target}: {counted(len(rows) - len(dropped), 'setting')}, and")
    print(f"  {counted(len(dropped), 'line')} as comments, each with its reason")
    for row in dropped:
        if row.is_open:
            print(f"  {row.there}  ({row.reason})")
    print(f"check it:  {command} --dry-run\ntrain:     {command}")
    return exit_codes.DONE


def _family(file: ForeignFile, path: Path, model: str | None) -> tuple[str, str]:
    """The family that the file is for, and whose file it is. Raises SettingsError."""
    known = [family for family in word_files() if family not in (SEVERAL, OTHERS)]
    families, quoted = file.families, shlex.quote(str(path))
    keys = {line.key for line in file.settings}
    instead = file.line_instead(path)
    if keys and keys <= {*names("keys")}:
        instead = f"--config {quoted}"
    where = f"command line: convert {path}"
    if instead is not None:
        raise SettingsError.of(
            f"{path} needs no conversion",
            value=str(path),
            where=where,
            allowed="a settings file of another program",
            fix=f"{PROGRAM} {instead}",
        )
    family = split_model_name(model)[0] if model else " ".join(families)
    if family in known:
        return family, f"the original of {family}" if family in families else "another tool"
    if model is None and not families and file.is_of_other_tool:
        family = FIRST_RUN[0]
        return family, f"another tool, for {family}; --model FAMILY names another family"
    message = f"{path} is no settings file of an original: its keys are those of none"
    if len(families) > 1:
        message = f"{path} may be a settings file of the original of {' or of '.join(families)}"
    if model is not None:
        message = f"{model} has no original"
    raise SettingsError.of(
        message,
        value=model or str(path),
        where=where,
        allowed=f"--model FAMILY, one of {', '.join(known)}",
        fix=f"{PROGRAM} convert {quoted} --model {families[0]}" if families else None,
    )


def translate(lines: Sequence[Line], family: str, has_gpu: bool) -> list[ConvertedSetting]:
    """A row for each line of an original's file: a setting here, or why there is none."""
    infos = setting_infos(family)
    off = {fold(line.name) for line in lines if plain(line.value).lower() in OFF}
    rows = []
    for line in lines:
        row = _translated(ConvertedSetting(line), family, off)
        if row.key is not None and row.word is not None and row.word.gpu and not has_gpu:
            row = row.dropped(f"needs a GPU; where there is one: {row.key}: {plain(row.value)}")
        if row.key is not None:
            row = _checked(row, row.key, family, infos[row.key])
        rows.append(row)
    rows = _without_conflicts(rows)
    lengths = [row for row in rows if row.key in _LENGTHS]
    if all(row.value is None for row in lengths):  # a run without an end
        rows = [row.dropped("it has no value") if row in lengths else row for row in rows]
    return rows


def _translated(row: ConvertedSetting, family: str, off: Collection[str]) -> ConvertedSetting:
    """The row of one line, without regard to the others except switches that are `off`."""
    line, infos = row.line, setting_infos(family)
    if line.unused:
        return row.dropped(line.unused)
    if line.key in infos:
        return replace(row, key=line.key, value=line.value)
    word = next((w for name in (line.key, line.name) for w in words_for(name, family)), None)
    if word is None:
        named = [key for key in infos if fold(key.split(".")[-1]) == fold(line.name)]
        if len(named) != 1:
            return row.dropped("no setting here has this name", is_open=True)
        return replace(row, key=named[0], value=line.value)
    there = "null" if line.value is None else line.value
    typed = word.replacement(there, family, [f"{PRETRAINED}="])
    if typed.startswith(REMOVE):
        return row.dropped(typed.removeprefix(REMOVE))
    if word.needs is not None and fold(word.needs) in off:
        return row.dropped(f"{word.needs} is off")
    if word.stage is not None:
        return row.dropped(f"of one stage: --stage {word.stage} {typed}")
    value = fetched(there, str) if word.form == "hub" and line.value else word.value(there)
    if word.here in infos and not str(value).startswith("--"):
        value = None if value == "null" else value
        return replace(row, key=word.here, value=value, word=word)
    args = parse(RUN, shlex.split(typed)).args
    pairs = [tuple(text.split("=", 1)) for text in args.sets]
    pairs += [(key, value) for key, (_, value) in args.options.items()]
    pairs += [("engine.name", args.engine)] if args.engine else []
    if len(pairs) != 1 or pairs[0][0] not in infos:
        return row.dropped(f"an option: {typed}")
    return replace(row, key=pairs[0][0], value=parse_yaml_value(pairs[0][1]), word=word)


def _checked(row: ConvertedSetting, key: str, family: str, info: SettingInfo) -> ConvertedSetting:
    """The row, dropped with the valid values if the setting does not take its value."""
    if row.line.value is None and not info.nullable:
        return row.dropped("it has no value")
    row = replace(row, value=value_here(key, row.value) or row.value)
    entry = TypedEntry(key, row.value, Origin(FILES_LAYER, f"line {row.line.number}"))
    for invalid in merge_layers(family, [[entry]])[1]:
        row = row.dropped(f"{invalid.message}; allowed: {invalid.allowed}", is_open=True)
    return row


def _without_conflicts(rows: Sequence[ConvertedSetting]) -> list[ConvertedSetting]:
    """Of rows with the same setting the last one counts, unless a word decides.

    Of those with its value the first one is left. The first row of trackers has them all.
    """
    counting: dict[str, ConvertedSetting] = {}
    for row in rows:
        before = counting.get(row.key or "")
        if row.key and not (before and before.word and before.word.decides):
            counting[row.key] = row
    names = [name for row in rows if row.key == _TRACK for name in row.value]
    projects = {name.partition(":")[0] for name in names if ":" in name}
    names = list(dict.fromkeys(name for name in names if name not in projects))
    left: dict[str, ConvertedSetting] = {}
    result = []
    for row in rows:
        if row.key is None:
            result.append(row)
        elif row.key != _TRACK and row.value != counting[row.key].value:
            line = counting[row.key].line
            result.append(row.dropped(f"{line.key} sets {row.key}, too, and counts"))
        elif row.key in left:
            result.append(row.dropped(f"as {left[row.key].line.key}"))
        else:
            left[row.key] = row
            result.append(replace(row, value=names) if row.key == _TRACK else row)
    return result


def _head(rows: Sequence[ConvertedSetting], family: str, path: Path, whose: str) -> Iterator[str]:
    yield f"# Settings of {path}, a file of {whose.partition(',')[0]}."
    yield "# A comment behind a setting is its line there. A commented line has no setting here."
    yield f"model.family: {family}"
    present = {row.key for row in rows}
    implied = dict(word_files()[family].settings)
    if any(row.key == PRETRAINED and replaces_size(family, row.value) for row in rows):
        implied.pop("model.size", None)
    for row in rows:
        if row.key is not None and row.word is not None and isinstance(row.value, list):
            size = row.word.sizes.get(str(len(row.value)))
            implied |= {"model.size": size} if size else {}
    for key, value in implied.items():
        if key not in present:
            yield f"{key}: {plain(value)}"


def _body(file: ForeignFile, rows: Sequence[ConvertedSetting]) -> Iterator[str]:
    """A line for each line of the original's file."""
    starts: dict[int, list[ConvertedSetting]] = {}
    for row in rows:
        starts.setdefault(row.line.number, []).append(row)
    inside = {n for row in rows for n in range(row.line.number + 1, row.line.last + 1)}
    for number, text in enumerate(file.lines, start=1):
        text = text.strip()
        if number in starts:
            yield from (_rendered(row) for row in starts[number])
        elif text.startswith("#") or (not text and number not in inside):
            yield text
        elif number not in inside:
            yield f"# {text}"


def _rendered(row: ConvertedSetting) -> str:
    behind = f"  {row.line.comment}" if row.line.comment else ""
    if row.key is None:
        return f"# {row.there}  (dropped: {row.reason}){behind}"
    text = f"{row.key}: {_as_yaml(row.value)}"
    is_same = row.key == row.line.key and row.value == row.line.value
    return f"{text}{'' if is_same else f'  # {row.there}'}{behind}"


def _as_yaml(value: Any) -> str:
    """A value that a settings file reads as it is."""
    for text in (plain(value), shown(value)):
        try:
            if parse_yaml_value(text) == value and "#" not in text:
                return text
        except Unreadable:
            continue
    return json.dumps(value, ensure_ascii=False)
