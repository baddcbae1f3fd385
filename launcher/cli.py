"""From the words of a command line to a request, or to all that is wrong with them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launcher.commands.catalog import COMMANDS, DEFAULT, Command
from launcher.messages import PROGRAM, Fault, nearest
from launcher.options import BY_FLAG, HELP, RESUME, Option
from launcher.settings.resolved import Words

_ORDER = 999
"""After the faults of files and before those of the settings typed."""
_WORDS = {"RUN": "runs/NAME", "NAME": "my_task"}
"""What stands in an example for a word that may be many things."""
_NUMBER = re.compile(r"-[0-9.]")


@dataclass(frozen=True)
class Request:
    """What a person asked for. `faults`: words that could not be understood."""

    command: Command
    word: str | None
    """The RUN of resume, the KEY of explain, the WHAT of list, the SHELL of completion."""
    words: Words
    flags: frozenset[str]
    """Options typed that are neither settings nor files: --dry-run, --json, --schema, --help."""
    out: Path | None
    faults: Sequence[Fault]
    values: Mapping[str, str] = field(default_factory=dict)
    """What was typed behind an option of this command alone, such as "--format": "hf"."""
    operand: str | None = None
    """The PATH of data check."""


def read(argv: Sequence[str]) -> Request:
    """Understand a command line; faults are part of the answer, for all are shown together."""
    name, rest = (DEFAULT, list(argv))
    faults: list[Fault] = []
    if argv and not argv[0].startswith("-"):
        name, rest = argv[0], list(argv[1:])
        if name not in COMMANDS:
            faults.append(_unknown_command(name))
            name = DEFAULT
    command = COMMANDS[name]
    if "-h" in rest or HELP.flag in rest:
        return Request(command, None, Words(), frozenset({HELP.flag}), None, faults)
    known = _known(command, rest, faults)
    typed = _parse(command, known, faults)
    return Request(
        command=command,
        word=typed.word,
        words=_words(command, typed),
        flags=frozenset(flag for flag in _plain_flags(command) if getattr(typed, flag)),
        out=Path(typed.out) if getattr(typed, "out", None) else None,
        faults=faults,
        values={
            option.flag: value
            for option in command.options
            if option.flag not in BY_FLAG and (value := getattr(typed, option.flag[2:], None))
        },
        operand=typed.operand,
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


def _known(command: Command, argv: Sequence[str], faults: list[Fault]) -> list[str]:
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
            faults.append(_unknown_option(command, word, place))
            if "=" not in word and following is not None and not following.startswith("-"):
                place += 1  # its value, most likely
        elif "=" not in word and following is not None and _NUMBER.match(following):
            kept.append(f"{word}={following}")  # argparse takes -1e-3 for an option
            place += 1
        else:
            kept.append(word)
    return kept


def _parse(command: Command, argv: Sequence[str], faults: list[Fault]) -> argparse.Namespace:
    made = parser(command)
    try:
        typed, apart = made.parse_known_args(list(argv))
        typed.word += apart  # words between options
    except argparse.ArgumentError as error:
        faults.append(_unreadable(command, error))
        typed = made.parse_args([])
    given: list[str] = typed.word
    taken = bool(command.word) + bool(command.operand)
    faults += [_unexpected(command, word) for word in given[taken:]]
    typed.word = given[0] if given and taken else None
    typed.operand = given[1] if given[1:] and command.operand else None
    if typed.word is None and command.word_required:
        faults.append(_missing_word(command))
    elif typed.word and command.words and typed.word not in command.words:
        faults.append(_wrong_word(command, typed.word))
    elif command.operand and typed.operand is None:
        faults.append(_missing_operand(command))
    return typed


def _words(command: Command, typed: argparse.Namespace) -> Words:
    """The settings among what was typed; a command may take some of their options only."""
    mode_option, mode = getattr(typed, "mode", None) or ("--mode", None)
    goes_on = command.name == "resume"
    return Words(
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
    )


def _short_options(
    options: Sequence[Option], typed: Mapping[str, object]
) -> list[tuple[str, tuple[str, str]]]:
    found = []
    for option in options:
        if option.key is None or option.key in ("mode", "engine.name"):
            continue
        if option.metavar is None:
            if typed[option.flag]:
                found.append((option.key, (option.flag, "true")))
        elif typed[option.key] is not None:
            found.append((option.key, (option.flag, str(typed[option.key]))))
    return found


def _plain_flags(command: Command) -> list[str]:
    return [o.flag for o in command.options if o.metavar is None and not o.key and not o.mode]


def _unknown_command(name: str) -> Fault:
    near = nearest(name, COMMANDS)
    return Fault(
        f"command '{name}' is not known",
        value=name,
        place="the command line, first word",
        legal=f"{', '.join(COMMANDS)}; or options, for {DEFAULT}",
        nearest=near,
        mend=near and f"write  {PROGRAM} {near}",
        order=(_ORDER, 0),
    )


def _unknown_option(command: Command, word: str, place: int) -> Fault:
    flag, equals, value = word.partition("=")
    flags = [option.flag for option in command.options] + [HELP.flag]
    near = nearest(flag, flags)
    return Fault(
        f"option '{flag}' is not known",
        value=flag,
        place=f"the command line: {word}",
        legal=f"{len(flags)} options; see  {_call(command)} --help",
        nearest=near,
        mend=near and f"write  {near}{equals}{value}",
        order=(_ORDER, place),
    )


def _unreadable(command: Command, error: argparse.ArgumentError) -> Fault:
    """An option without its value, or a value that it does not take."""
    flag = error.argument_name or ""
    option = next((one for one in command.options if one.flag == flag), None)
    takes = option is not None and option.metavar is not None
    return Fault(
        f"option '{flag}' needs a value" if takes else f"option '{flag}' takes no value",
        place=f"the command line: {flag}",
        legal=f"{flag} {option.metavar}" if option and takes else flag,
        order=(_ORDER, 0),
    )


def _unexpected(command: Command, word: str) -> Fault:
    options = [option for option in command.options if option.values is not None]
    fits = next((f"{option.flag} {word}" for option in options if _names(option, word)), None)
    return Fault(
        f"'{word}' is no option",
        value=word,
        place=f"the command line: {word}",
        legal=f"options; see  {_call(command)} --help",
        nearest=fits,
        order=(_ORDER, 0),
    )


def _names(option: Option, word: str) -> bool:
    """Whether the word is a model, mode or engine that was typed without its option."""
    from launcher.names import names

    return option.values in ("models", "modes", "engines") and word in names(option.values)


def _missing_word(command: Command) -> Fault:
    return Fault(
        f"{command.name} needs to know what",
        place=f"the command line: {command.name}",
        legal=", ".join(command.words) or command.legal,
        mend=f"write  {_call(command)} {_example(command)}",
        order=(_ORDER, 0),
    )


def _missing_operand(command: Command) -> Fault:
    words = f"{command.name} {command.words[0]}"
    return Fault(
        f"{words} needs a {command.operand}",
        place=f"the command line: {words}",
        legal=f"{PROGRAM} {words} {command.operand}",
        order=(_ORDER, 0),
    )


def _wrong_word(command: Command, word: str) -> Fault:
    near = nearest(word, command.words)
    return Fault(
        f"{command.name} {word!r} is not known",
        value=word,
        place=f"the command line: {command.name} {word}",
        legal=", ".join(command.words),
        nearest=near,
        mend=f"write  {_call(command)} {near or command.words[0]}",
        order=(_ORDER, 0),
    )


def _example(command: Command) -> str:
    """A word that it could be given."""
    name = command.words[0] if command.words else _WORDS.get(command.word or "", "")
    return f"{name} {command.operand}" if command.operand else name


def _call(command: Command) -> str:
    return PROGRAM if command.name == DEFAULT else f"{PROGRAM} {command.name}"
