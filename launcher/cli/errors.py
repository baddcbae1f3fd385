"""What is wrong with the words of a command line, before anybody knows what they mean."""

from __future__ import annotations

import argparse

from launcher.base.diagnostics import PROGRAM, Diagnostic, nearest_match
from launcher.cli.options import HELP, Option
from launcher.commands.catalog import COMMANDS, DEFAULT, Command
from slurm.sbatch_options import option_of

_ORDER = 999
"""After the faults of files and before those of the settings typed."""
_WORDS = {"RUN": "runs/NAME", "NAME": "my_task"}
"""What stands in an example for a word that may be many things."""


def unknown_command(name: str) -> Diagnostic:
    """No command has the name."""
    near = nearest_match(name, COMMANDS)
    return Diagnostic(
        f"command '{name}' is not known",
        value=name,
        where="the command line, first word",
        allowed=f"{', '.join(COMMANDS)}; or options, for {DEFAULT}",
        did_you_mean=near,
        fix=near and f"{PROGRAM} {near}",
        order=(_ORDER, 0),
    )


def unknown_option(command: Command, word: str, place: int) -> Diagnostic:
    """The command has no such option; `place` is that of the word behind the command."""
    flag = word.partition("=")[0]
    flags = [option.flag for option in command.options] + [HELP.flag]
    near = nearest_match(flag, flags)
    theirs = option_of(word) if command.behind is not None else None
    if theirs is not None and f"--{theirs}" in flags:
        near = f"--{theirs}"  # their letter for an option of ours
    elif theirs is not None:
        return _of_another(command, word, place)
    return Diagnostic(
        f"option '{flag}' is not known",
        value=flag,
        where=f"the command line: {word}",
        allowed=f"{len(flags)} options; see  {_call(command)} --help",
        did_you_mean=near,
        fix=near and f"{near}{_value(flag, word, theirs)}",
        order=(_ORDER, place),
    )


def _value(flag: str, word: str, theirs: str | None) -> str:
    """The value that stands in the same word, as our option is given it: `-N2`, `--nodse=2`."""
    if theirs is not None and not word.startswith("--"):
        return f" {word[2:]}".rstrip()
    return word[len(flag) :]


def _of_another(command: Command, word: str, place: int) -> Diagnostic:
    """An option of the program whose options stand behind `--`."""
    return Diagnostic(
        f"option '{word.partition('=')[0]}' is one of {command.behind}, and none of {command.name}",
        value=word,
        where=f"the command line: {word}",
        allowed=f"options of {command.behind} behind  -- , at the end",
        fix=f"{_call(command)} … -- {word}",
        order=(_ORDER, place),
    )


def unreadable(command: Command, error: argparse.ArgumentError) -> Diagnostic:
    """An option without its value, or a value that it does not take."""
    flag = error.argument_name or ""
    option = next((one for one in command.options if one.flag == flag), None)
    takes = option is not None and option.metavar is not None
    return Diagnostic(
        f"option '{flag}' needs a value" if takes else f"option '{flag}' takes no value",
        where=f"the command line: {flag}",
        allowed=f"{flag} {option.metavar}" if option and takes else flag,
        order=(_ORDER, 0),
    )


def unexpected(command: Command, word: str) -> Diagnostic:
    """A word that stands alone where none is taken."""
    options = [option for option in command.options if option.values is not None]
    fits = next((f"{option.flag} {word}" for option in options if _names(option, word)), None)
    return Diagnostic(
        f"'{word}' is no option",
        value=word,
        where=f"the command line: {word}",
        allowed=f"options; see  {_call(command)} --help",
        did_you_mean=fits,
        order=(_ORDER, 0),
    )


def _names(option: Option, word: str) -> bool:
    """Whether the word is a model, mode or engine that was typed without its option."""
    from launcher.config.names import names

    return option.values in ("models", "modes", "engines") and word in names(option.values)


def missing_word(command: Command) -> Diagnostic:
    """The command is given nothing to work on."""
    return Diagnostic(
        f"{command.name} needs to know what",
        where=f"the command line: {command.name}",
        allowed=", ".join(command.words) or command.allowed,
        fix=f"{_call(command)} {_example(command)}",
        order=(_ORDER, 0),
    )


def missing_operand(command: Command) -> Diagnostic:
    """Its first word wants a second one."""
    words = f"{command.name} {command.words[0]}"
    return Diagnostic(
        f"{words} needs a {command.operand}",
        where=f"the command line: {words}",
        allowed=f"{PROGRAM} {words} {command.operand}",
        order=(_ORDER, 0),
    )


def wrong_word(command: Command, word: str) -> Diagnostic:
    """The word is none of those that the command takes."""
    near = nearest_match(word, command.words)
    return Diagnostic(
        f"{command.name} {word!r} is not known",
        value=word,
        where=f"the command line: {command.name} {word}",
        allowed=", ".join(command.words),
        did_you_mean=near,
        fix=f"{_call(command)} {near or command.words[0]}",
        order=(_ORDER, 0),
    )


def _example(command: Command) -> str:
    """A word that it could be given."""
    name = command.words[0] if command.words else _WORDS.get(command.word or "", "")
    return f"{name} {command.operand}" if command.operand else name


def _call(command: Command) -> str:
    return PROGRAM if command.name == DEFAULT else f"{PROGRAM} {command.name}"
