"""The command line parser: choose the command, parse its arguments, and render help."""

from __future__ import annotations

import argparse
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM, Diagnostic, nearest_match
from gearshift.launcher.config import presets
from gearshift.launcher.config.command_line import (
    DEFAULT,
    HELP,
    RUN,
    Command,
    CommandLine,
    Option,
    names,
    parse,
)
from gearshift.launcher.config.provenance import LAYERS
from gearshift.launcher.config.schema import FIRST_RUN, setting_infos

_WIDTH = 100
_COLUMN = 26
_HELP = "help"
"""`help COMMAND` is `COMMAND --help`."""
_EXAMPLES = (
    "",
    "--lite --max-steps 20",
    "--engine zero2-offload --mode resource-efficient --nproc 2",
    "--model language:full --data notes/ --set optim.weight_decay=0.05",
    "explain optim.lr --fast",
    "help resume",
)
_ABOUT = """\
Train a model on this machine. Choose a model, a mode (how much time, memory and data training
may cost) and an engine (how training uses the hardware). All other settings have defaults;
`explain` shows them."""


def read(argv: Sequence[str]) -> CommandLine:
    """Parse a command line; all errors are in the result's `diagnostics`."""
    if argv and argv[0] == _HELP:
        argv = [*argv[1:], HELP.flag]
    if not argv or argv[0].startswith("-"):
        return parse(RUN, argv)
    from gearshift.launcher.commands.catalog import (
        ALIASES,
        COMMANDS,
    )  # with the options of all others

    command = COMMANDS.get(ALIASES.get(argv[0], argv[0]))
    if command is not None:
        return parse(command, argv[1:])
    nearest = nearest_match(argv[0], [*COMMANDS, *ALIASES, _HELP])
    parsed = parse(RUN, argv[1:])
    error = Diagnostic(
        f"unknown command '{argv[0]}'",
        value=argv[0],
        where="command line, first argument",
        allowed=f"{', '.join(COMMANDS)}; or options of {DEFAULT}",
        did_you_mean=nearest,
        fix=nearest and f"{PROGRAM} {shlex.join([nearest, *argv[1:]])}",
    )
    # It is printed alone: what else is wrong depends on what is meant.
    alone = replace(parsed.command, adds_errors=False)
    return replace(parsed, command=alone, diagnostics=[error])


def build() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """A parser with the options of `run` and a subparser for each command; and these by name."""
    from gearshift.launcher.commands.catalog import COMMANDS

    root = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [COMMAND] [OPTIONS]",
        description=_ABOUT,
        epilog="\n".join(_epilog()),
        formatter_class=_formatter,
        add_help=False,
    )
    commands = root.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    parsers = {}
    for command in COMMANDS.values():
        parsers[command.name] = commands.add_parser(
            command.name,
            help=_escaped(command.sentence),
            usage=_escaped(f"{PROGRAM} {command.name}{_positionals(command)}"),
            description=f"{command.sentence[0].upper()}{command.sentence[1:]}.",
            formatter_class=_formatter,
            add_help=False,
        )
        _add_arguments(parsers[command.name], command)
    _add_arguments(root, RUN)
    return root, parsers


def _add_arguments(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add the arguments of `command` to `parser`, each with its help."""
    for dest, metavar in (("argument", command.argument), ("operand", command.operand)):
        if metavar is not None:
            nargs = "*" if command.repeats_argument else "?"
            parser.add_argument(dest, nargs=nargs, metavar=metavar, help=argparse.SUPPRESS)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in (*command.options, HELP):
        group = groups.get(option.group) or parser.add_argument_group(option.group)
        groups[option.group] = group
        form: dict[str, Any] = (
            {"metavar": option.metavar} if option.metavar else {"action": "store_true"}
        )
        names = ("-h", option.flag) if option is HELP else (option.flag,)
        group.add_argument(*names, help=_sentence(option), **form)


def render_help(command: Command) -> str:
    """The help of one command; the help of `run` lists all commands."""
    root, parsers = build()
    return (root if command.name == DEFAULT else parsers[command.name]).format_help()


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=_COLUMN, width=_WIDTH)


def _positionals(command: Command) -> str:
    """The positional arguments, each after a blank, and what else may follow."""
    text = f"{{{','.join(command.choices)}}}" if command.choices else command.argument or ""
    if command.operand is not None:
        optional = {choice: f"[{form}]" for choice, form in command.optional_operand.items()}
        calls = (f"{choice} {optional.get(choice, command.operand)}" for choice in command.choices)
        text = f"{{{' | '.join(calls)}}}"
    elif command.repeats_argument:
        text += "..."
    elif command.argument and not command.requires_argument:
        text = f"[{text}]"
    passthrough = f"[-- OPTIONS OF {command.passthrough}]" if command.passthrough else ""
    return "".join(f" {part}" for part in (text, "[OPTIONS]", passthrough) if part)


def _sentence(option: Option) -> str:
    """The option's own help, or the description of its setting, with the values if they are few."""
    if option.sentence or option.key is None:
        return _escaped(option.sentence)
    sentence = setting_infos(FIRST_RUN[0])[option.key].description
    allowed = names(None, option.key)
    if allowed and option.values is None:
        sentence = f"{sentence} One of {', '.join(allowed)}."
    return _escaped(sentence)


def _epilog() -> Iterator[str]:
    yield from _section("modes", [(name, presets.mode(name).sentence) for name in names("modes")])
    yield ""
    yield "layers of settings; a later layer overrides an earlier one:"
    indent = "  "
    yield from textwrap.wrap(
        " < ".join(LAYERS), _WIDTH, initial_indent=indent, subsequent_indent=indent
    )
    codes = [(str(code), text) for code, text in exit_codes.MEANINGS.items()]
    yield from _section("exit codes", codes)
    yield ""
    yield "examples:"
    for example in _EXAMPLES:
        yield f"  {PROGRAM} {example}".rstrip()


def _section(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield ""
    yield f"{title}:"
    for left, right in rows:
        lines = textwrap.wrap(right, _WIDTH - _COLUMN) or [""]
        yield f"  {left:<{_COLUMN - 3}} {lines[0]}".rstrip()
        yield from (" " * _COLUMN + line for line in lines[1:])


def _escaped(text: str) -> str:
    """`text` for argparse, which formats help with `%`."""
    return text.replace("%", "%%")
