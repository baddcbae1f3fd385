"""The command `convert`: write a settings file from one of an original code base."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.base import disk, exit_codes
from launcher.base.diagnostics import OFF, PROGRAM, SettingsError, counted, fold, plain, shown
from launcher.config import machine
from launcher.config.command_line import RUN, CommandLine, parse
from launcher.config.layers import merge_layers
from launcher.config.options import JSON, names
from launcher.config.original_files import Line, OriginalFile, converted_name, read
from launcher.config.originals import SEVERAL, Original, all_words, hub_folder, typed_line, word_of
from launcher.config.other_tools import REMOVE, entry_of, option_line, setting_of, value_of
from launcher.config.provenance import FILES_LAYER, CliArgs, Origin, TypedEntry
from launcher.config.schema import FIRST_RUN, PRETRAINED, SettingInfo, replaces_size, setting_infos
from launcher.config.settings_file import Unreadable, parse_yaml_value
from launcher.run_folder import run_folder
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
    word: Original | None = None

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
    if command_line.diagnostics:
        raise SettingsError(command_line.diagnostics)
    assert command_line.argument is not None
    path = Path(command_line.argument)
    file = read(path, f"{PROGRAM} convert")
    family, whose = _family(file, path, command_line.args.model)
    rows = translate(file.settings, family, has_gpu=machine.detect_machine().device != "cpu")
    target = command_line.out or Path(converted_name(path))
    _write(target, render(file, rows, family, path, whose), command_line)
    command = f"{PROGRAM} --config {shlex.quote(str(target))}"
    dropped = [row for row in rows if row.key is None]
    if JSON.flag in command_line.flags:
        content = {"original": family, "file": str(target), "command": command}
        print(json.dumps({**content, **_as_json(rows)}, indent=2))
        return exit_codes.DONE
    print(f"{path}: settings of {whose}")
    print(f"wrote {target}: {counted(len(rows) - len(dropped), 'setting')}, and")
    print(f"  {counted(len(dropped), 'line')} as comments, each with its reason")
    for row in dropped:
        if row.is_open:
            print(f"  {row.there}  ({row.reason})")
    print(f"check it:  {command} --dry-run\ntrain:     {command}")
    return exit_codes.DONE


def _as_json(rows: Sequence[ConvertedSetting]) -> dict[str, Any]:
    return {
        "settings": {row.key: row.value for row in rows if row.key is not None},
        "dropped": [
            {"line": row.line.number, "setting": row.there, "reason": row.reason}
            for row in rows
            if row.key is None
        ],
    }


def _family(file: OriginalFile, path: Path, model: str | None) -> tuple[str, str]:
    """The family that the file is for, and whose file it is. Raises SettingsError."""
    known = [family for family in all_words() if family != SEVERAL]
    families = file.families
    keys = {line.key for line in file.settings}
    is_ours = bool(keys) and keys <= {*names("keys")}
    instead = f"--config {shlex.quote(str(path))}" if is_ours else file.line_instead(path)
    if instead is not None:
        raise SettingsError.of(
            f"{path} needs no conversion",
            value=str(path),
            where=f"command line: convert {path}",
            allowed="a settings file of another program",
            fix=f"{PROGRAM} {instead}",
        )
    if model is not None and (family := split_model_name(model)[0]) in known:
        return family, f"the original of {family}" if family in families else "another tool"
    if model is None and len(families) == 1:
        return families[0], f"the original of {families[0]}"
    if model is None and not families and file.is_of_other_tool:
        return FIRST_RUN[
            0
        ], f"another tool, for {FIRST_RUN[0]}; --model FAMILY names another family"
    unclear = f"may be a settings file of the original of {' or of '.join(families)}"
    unknown = "is no settings file of an original: its keys are those of none"
    message = f"{path} {unclear if len(families) > 1 else unknown}"
    if model is not None:
        message = f"{model} has no original"
    raise SettingsError.of(
        message,
        value=model or str(path),
        where=f"command line: convert {path}",
        allowed=f"--model FAMILY, one of {', '.join(known)}",
        fix=f"{PROGRAM} convert {shlex.quote(str(path))} --model {families[0]}"
        if families
        else None,
    )


def translate(lines: Sequence[Line], family: str, has_gpu: bool) -> list[ConvertedSetting]:
    """A row for each line of an original's file: a setting here, or why there is none."""
    infos = setting_infos(family)
    off = {fold(line.name) for line in lines if plain(line.value).lower() in OFF}
    rows = [_translated(line, family, infos, off) for line in lines]
    if not has_gpu:
        rows = [
            row.dropped(f"needs a GPU; where there is one: {row.key}: {plain(row.value)}")
            if row.key is not None and row.word is not None and row.word.gpu
            else row
            for row in rows
        ]
    rows = _without_invalid(rows, family)
    return _with_end(_with_tracks(_without_conflicts(rows)))


def _with_end(rows: Sequence[ConvertedSetting]) -> list[ConvertedSetting]:
    """Without the rows that leave a run without an end: neither epochs nor steps."""
    lengths = [row for row in rows if row.key in _LENGTHS]
    if any(row.value is not None for row in lengths):
        return list(rows)
    return [row.dropped("it has no value") if row in lengths else row for row in rows]


def _translated(
    line: Line, family: str, infos: Mapping[str, SettingInfo], off: Iterable[str]
) -> ConvertedSetting:
    """The row of one line, without regard to the others except switches that are `off`."""
    row = ConvertedSetting(line)
    if line.unused:
        return row.dropped(line.unused)
    if line.key in infos:
        return _unless_null(replace(row, key=line.key, value=line.value), infos)
    word = word_of(line.key, family)
    row = replace(row, word=word)
    if word is None:
        if (other := _of_other_tool(row, family, infos)) is not None:
            return other
        named = [key for key in infos if fold(key.split(".")[-1]) == fold(line.name)]
        if len(named) != 1:
            return row.dropped("no setting here has this name", is_open=True)
        return _unless_null(replace(row, key=named[0], value=line.value), infos)
    original_value = "null" if line.value is None else line.value
    if (removal := word.removal(original_value)) is not None:
        return row.dropped(removal.removeprefix("remove it: "))
    assert word.here is not None
    if word.needs is not None and fold(word.needs) in off:
        return row.dropped(f"{word.needs} is off")
    if word.here not in infos:
        is_option = word.here.startswith("--")
        return row.dropped(
            f"an option: {typed_line(word, original_value)}"
            if is_option
            else f"not for family {family}"
        )
    if word.stage is not None:
        return row.dropped(f"of one stage: --stage {word.stage} {typed_line(word, original_value)}")
    if word.form == "hub" and hub_folder(line.value) is not None:
        return row.dropped(f"of the hub: {typed_line(word, line.value)}", is_open=True)
    value = line.value if line.value is None else word.value(line.value)
    value = None if value == "null" else value
    is_null = line.value is None
    row = replace(row, key=word.here, value=value)
    return _unless_null(row, infos) if is_null else row


def _of_other_tool(
    row: ConvertedSetting, family: str, infos: Mapping[str, SettingInfo]
) -> ConvertedSetting | None:
    """The row of a word of another tool; None: it is unknown there, too."""
    line = row.line
    if (key := setting_of(line.key)) in infos:
        return _unless_null(replace(row, key=key, value=line.value), infos)
    is_on = line.value is True
    text = ",".join(map(str, line.value)) if isinstance(line.value, list) else plain(line.value)
    if line.value is None and entry_of("options", line.name) is not None:
        return row.dropped("it has no value")
    replacement = option_line(f"--{line.name}", None if is_on else text, family, [f"{PRETRAINED}="])
    if replacement is None:
        return None
    if replacement.startswith(REMOVE):
        return row.dropped(replacement.removeprefix(REMOVE))
    args = parse(RUN, shlex.split(replacement)).args if replacement.startswith("--") else CliArgs()
    pairs = [tuple(text.split("=", 1)) for text in args.sets]
    pairs += [(key, value) for key, (_, value) in args.options.items()]
    pairs += [("engine.name", args.engine)] if args.engine else []
    if len(pairs) != 1 or pairs[0][0] not in infos:
        return row.dropped(
            replacement if replacement.startswith("--") else f"of the hub: {replacement}",
            is_open=True,
        )
    key, text = pairs[0]
    value = text.split(",") if key == _TRACK else parse_yaml_value(text)
    # `bf16: true` counts beside `fp16: false`.
    return replace(row, key=key, value=value, word=Original([line.name], key, decides=is_on))


def _unless_null(row: ConvertedSetting, infos: Mapping[str, SettingInfo]) -> ConvertedSetting:
    """`row`, unless it has no value and its setting needs one."""
    if row.line.value is not None or infos[str(row.key)].nullable:
        return row
    return row.dropped("it has no value")


def _without_invalid(rows: Sequence[ConvertedSetting], family: str) -> list[ConvertedSetting]:
    """Rows whose value the setting does not take are dropped, with its valid values."""
    checked_rows = []
    for row in rows:
        if row.key is not None:
            row = replace(row, value=value_of(row.key, row.value) or row.value)
            assert row.key is not None
            origin = Origin(FILES_LAYER, f"line {row.line.number}")
            layer = [TypedEntry(row.key, row.value, origin)]
            for invalid in merge_layers(family, [layer])[1]:
                problem = f"{invalid.message}; allowed: {invalid.allowed}"
                row = row.dropped(problem, is_open=True)
        checked_rows.append(row)
    return checked_rows


def _without_conflicts(rows: Sequence[ConvertedSetting]) -> list[ConvertedSetting]:
    """Of rows with the same setting the last one counts, unless a word decides.

    Of those with its value the first one is left.
    """
    counting: dict[str, ConvertedSetting] = {}
    for row in rows:
        if row.key is not None and row.key != _TRACK:
            before = counting.get(row.key)
            decides = before is not None and before.word is not None and before.word.decides
            counting[row.key] = before if before is not None and decides else row
    rows_left: dict[str, ConvertedSetting] = {}
    return [
        _beside(row, counting[row.key], rows_left) if row.key in counting else row for row in rows
    ]


def _beside(
    row: ConvertedSetting, counting: ConvertedSetting, rows_left: dict[str, ConvertedSetting]
) -> ConvertedSetting:
    """`row`, dropped if another one sets its setting; `rows_left` are those that are left."""
    key = str(row.key)
    if row.value != counting.value:
        return row.dropped(f"{counting.line.key} sets {key}, too, and counts")
    if key in rows_left:
        return row.dropped(f"as {rows_left[key].line.key}")
    rows_left[key] = row
    return row


def _with_tracks(rows: Sequence[ConvertedSetting]) -> list[ConvertedSetting]:
    """The first row of trackers has them all."""
    names = [name for row in rows if row.key == _TRACK for name in row.value]
    projects = {name.partition(":")[0] for name in names if ":" in name}
    names = list(dict.fromkeys(name for name in names if name not in projects))
    first = next((row for row in rows if row.key == _TRACK), None)
    return [
        row
        if row.key != _TRACK
        else replace(row, value=names)
        if row is first
        else row.dropped(f"as {first.line.key}" if first else "")
        for row in rows
    ]


def render(
    file: OriginalFile, rows: Sequence[ConvertedSetting], family: str, path: Path, whose: str
) -> str:
    """The text of our file: a line for each line of the original's."""
    return "\n".join([*_head(rows, family, path, whose), "", *_body(file, rows)]) + "\n"


def _head(rows: Sequence[ConvertedSetting], family: str, path: Path, whose: str) -> Iterator[str]:
    yield f"# Settings of {path}, a file of {whose.partition(',')[0]}."
    yield "# A comment behind a setting is its line there. A commented line has no setting here."
    yield f"model.family: {family}"
    present = {row.key for row in rows}
    implied = dict(all_words()[family].settings)
    if any(row.key == PRETRAINED and replaces_size(family, row.value) for row in rows):
        implied.pop("model.size", None)
    for row in rows:
        if row.key is not None and row.word is not None and isinstance(row.value, list):
            size = row.word.sizes.get(str(len(row.value)))
            implied |= {"model.size": size} if size else {}
    for key, value in implied.items():
        if key not in present:
            yield f"{key}: {plain(value)}"


def _body(file: OriginalFile, rows: Sequence[ConvertedSetting]) -> Iterator[str]:
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


def _write(path: Path, text: str, command_line: CommandLine) -> None:
    """Touches the disk. Raises SettingsError, with nothing written."""
    where = f"--out {path}" if command_line.out else "the current folder"
    if path.exists():
        name = Path(command_line.argument or "")
        raise SettingsError.of(
            f"{path} already exists",
            value=str(path),
            where=where,
            allowed="a new file",
            fix=f"{PROGRAM} convert {shlex.quote(str(name))} --out {_free_name(path)}",
        )
    disk.check_writable(path.parent, where, prefix=f"cannot write {path}: ", needed_bytes=len(text))
    try:
        with disk.new_parents(path):
            run_folder.write_new(path, text)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror or error}"
        raise SettingsError.of(message, value=str(path), where=where) from error


def _free_name(path: Path) -> str:
    numbers = (path.with_stem(f"{path.stem}-{number}") for number in range(2, 1000))
    return shlex.quote(str(next(name for name in numbers if not name.exists())))
