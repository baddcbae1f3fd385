"""From the words of a command line to a request, or to all that is wrong with them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic
from launcher.cli import errors
from launcher.cli.options import BY_FLAG, HELP, RESUME, STAGE, Option
from launcher.commands.catalog import COMMANDS, DEFAULT, Command
from launcher.config.resolved import STAGED, CliArgs, Filled

_NUMBER = re.compile(r"-[0-9.]")


@dataclass(frozen=True)
class Request:
    """What a person asked for. `faults`: words that could not be understood."""

    command: Command
    word: str | None
    """The RUN of resume, the KEY of explain, the WHAT of list, the SHELL of completion."""
    words: CliArgs
    flags: frozenset[str]
    """Options typed that are neither settings nor files: --dry-run, --json, --schema, --help."""
    out: Path | None
    diagnostics: Sequence[Diagnostic]
    values: Mapping[str, str] = field(default_factory=dict)
    """What was typed behind an option of this command alone, such as "--format": "hf"."""
    operand: str | None = None
    """The PATH of data check."""
    behind: Sequence[str] = ()
    """What was typed behind `--`, for another program."""
    typed: Sequence[str] = field(default=(), compare=False)
    """The command line as it came."""


def read(argv: Sequence[str]) -> Request:
    """Understand a command line; faults are part of the answer, for all are shown together."""
    name, rest = (DEFAULT, list(argv))
    diagnostics: list[Diagnostic] = []
    if argv and not argv[0].startswith("-"):
        name, rest = argv[0], list(argv[1:])
        if name not in COMMANDS:
            diagnostics.append(errors.unknown_command(name))
            name = DEFAULT
    command = COMMANDS[name]
    behind: list[str] = []
    if command.behind is not None and "--" in rest:
        place = rest.index("--")
        rest, behind = rest[:place], rest[place + 1 :]
    if "-h" in rest or HELP.flag in rest:
        return Request(command, None, CliArgs(), frozenset({HELP.flag}), None, diagnostics)
    known = _known(command, rest, diagnostics)
    typed = _parse(command, known, diagnostics)
    return Request(
        command=command,
        word=typed.word,
        words=_words(command, typed),
        flags=frozenset(flag for flag in _plain_flags(command) if getattr(typed, flag)),
        out=Path(typed.out) if getattr(typed, "out", None) else None,
        diagnostics=diagnostics,
        values={
            option.flag: value
            for option in command.options
            if _is_own(option) and (value := getattr(typed, option.flag[2:], None))
        },
        operand=typed.operand,
        behind=behind,
        typed=argv,
    )


def parser(command: Command) -> argparse.ArgumentParser:
    """The parser that the command's table describes; help is rendered in help_text.py."""
    made = argparse.ArgumentParser(prog=PROGRAM, add_help=False, exit_on_error=False)
    made.add_argument("word", nargs="*", default=[])
    for option in command.options:
        _add(made, option)
    return made


def _add(made: argparse.ArgumentParser, option: Option) -> None:
    if option.mode is not None:
        said = (option.flag, option.mode)
        made.add_argument(option.flag, dest="mode", action="store_const", const=said)
    elif option.flag == "--mode":
        made.add_argument(option.flag, dest="mode", type=lambda text: ("--mode", text))
    elif option.metavar is None:
        made.add_argument(option.flag, dest=option.flag, action="store_true")
    elif option.repeats:
        made.add_argument(option.flag, dest=option.flag[2:], action="append", default=[])
    else:
        made.add_argument(option.flag, dest=option.key or option.flag[2:])


def _known(command: Command, argv: Sequence[str], diagnostics: list[Diagnostic]) -> list[str]:
    """The words without options that there are not, each of which becomes a fault."""
    flags = {option.flag: option for option in command.options}
    kept: list[str] = []
    place = 0
    while place < len(argv):
        word = argv[place]
        place += 1
        flag = word.partition("=")[0]
        following = argv[place] if place < len(argv) else None
        if not word.startswith("-") or word == "-":
            kept.append(word)
        elif flag not in flags:
            diagnostics.append(errors.unknown_option(command, word, place))
            if "=" not in word and following is not None and not following.startswith("-"):
                place += 1  # its value, most likely
        elif "=" not in word and following is not None and _NUMBER.match(following):
            kept.append(f"{word}={following}")  # argparse takes -1e-3 for an option
            place += 1
        else:
            kept.append(word)
    return kept


def _parse(
    command: Command, argv: Sequence[str], diagnostics: list[Diagnostic]
) -> argparse.Namespace:
    made = parser(command)
    try:
        typed, apart = made.parse_known_args(list(argv))
        typed.word += apart  # words between options
    except argparse.ArgumentError as error:
        diagnostics.append(errors.unreadable(command, error))
        typed = made.parse_args([])
    given: list[str] = typed.word
    taken = bool(command.word) + command.takes_operand(given[0] if given else None)
    diagnostics += [errors.unexpected(command, word) for word in given[taken:]]
    typed.word = given[0] if given and taken else None
    typed.operand = given[1] if given[1:taken] else None
    if typed.word is None and command.word_required:
        diagnostics.append(errors.missing_word(command))
    elif typed.word and command.words and typed.word not in command.words:
        diagnostics.append(errors.wrong_word(command, typed.word))
    elif command.takes_operand(typed.word) and typed.operand is None:
        diagnostics.append(errors.missing_operand(command))
    return typed


def _words(command: Command, typed: argparse.Namespace) -> CliArgs:
    """The settings among what was typed; a command may take some of their options only."""
    stage = getattr(typed, "stage", None)
    of_stage = ("--mode", None) if stage is None else (f"{STAGE.flag} {stage}", STAGED)
    mode_option, mode = getattr(typed, "mode", None) or of_stage
    goes_on = command.name == "resume"
    return CliArgs(
        model=getattr(typed, "model", None),
        mode=mode,
        mode_option=mode_option,
        engine=getattr(typed, "engine.name", None),
        configs=[Path(path) for path in getattr(typed, "config", ())],
        sets=getattr(typed, "set", ()),
        options=dict(_short_options(command.options, vars(typed))),
        resume=typed.word if goes_on else getattr(typed, "resume", None),
        resume_option="resume" if goes_on else RESUME.flag,
        reset=getattr(typed, "reset", ()),
        filled=_stage(stage),
        weights=getattr(typed, "from", None),
    )


def _stage(name: str | None) -> list[Filled]:
    if name is None:
        return []
    return [Filled("stages", [name], STAGE.flag, f"{STAGE.flag} {name}")]


def _short_options(
    options: Sequence[Option], typed: Mapping[str, Any]
) -> list[tuple[str, tuple[str, str]]]:
    found = []
    for option in options:
        if option.key is None or option.key in ("mode", "engine.name"):
            continue
        value: Any = typed[option.flag if option.metavar is None else option.key]
        text = ",".join(value) if option.repeats else "true" if value is True else value
        if value not in (None, False, []):
            found.append((option.key, (option.flag, str(text))))
    return found


def _is_own(option: Option) -> bool:
    """Whether a command alone has the option, or means by it what is no setting."""
    shared = BY_FLAG.get(option.flag)
    return shared is None or (shared.key is not None and option.key is None)


def _plain_flags(command: Command) -> list[str]:
    return [o.flag for o in command.options if o.metavar is None and not o.key and not o.mode]
