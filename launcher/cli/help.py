"""The help of each command, and the parsers of argparse that format it."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM
from gearshift.launcher.commands.catalog import COMMANDS
from gearshift.launcher.config import presets
from gearshift.launcher.config.command_line import DEFAULT, HELP, RUN, Command, Option
from gearshift.launcher.config.input_errors import names
from gearshift.launcher.config.provenance import LAYERS
from gearshift.launcher.config.schema import FIRST_RUN, setting_infos

_WIDTH = 100
_COLUMN = 26
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


def render_help(command: Command) -> str:
    """The help of one command; the help of `run` lists all commands."""
    root, parsers = build()
    parser = root if command.name == DEFAULT else parsers[command.name]
    return parser.format_help()


def build() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """A parser with the options of `run` and a subparser for each command; and these by name.

    They never parse: completion and help are made from them.
    """
    root = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [COMMAND] [OPTIONS]",
        description=_ABOUT,
        epilog=_epilog(),
        formatter_class=_formatter,
        add_help=False,
    )
    commands = root.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    parsers = {}
    for command in COMMANDS.values():
        parsers[command.name] = commands.add_parser(
            command.name,
            help=_escaped(command.sentence),
            usage=_escaped(f"{PROGRAM} {command.name} {_usage(command)}"),
            description=f"{command.sentence[0].upper()}{command.sentence[1:]}.",
            formatter_class=_formatter,
            add_help=False,
        )
        _add_arguments(parsers[command.name], command)
    _add_arguments(root, RUN)
    return root, parsers


def _add_arguments(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add the arguments of `command` to `parser`, each with its help."""
    nargs = "*" if command.repeats_argument else None
    for name, metavar in (("argument", command.argument), ("operand", command.operand)):
        if metavar is not None:
            parser.add_argument(name, nargs=nargs, metavar=metavar, help=argparse.SUPPRESS)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in (*command.options, HELP):
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        group = groups[option.group]
        action = group.add_argument(option.flag, help=_sentence(option), metavar=option.metavar)
        if option is HELP:
            action.option_strings = ["-h", option.flag]
        if option.metavar is None:
            action.nargs = 0


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=_COLUMN, width=_WIDTH)


def _usage(command: Command) -> str:
    """The positional arguments, and what else may follow."""
    words = []
    if command.choices:
        words.append(f"{{{','.join(command.choices)}}}")
    elif command.argument:
        name = command.argument + "..." * command.repeats_argument
        words.append(name if command.requires_argument else f"[{name}]")
    if command.operand is not None:
        words.append(f"[{command.operand}]")
    words.append("[OPTIONS]")
    if command.passthrough:
        words.append(f"[-- OPTIONS OF {command.passthrough}]")
    return " ".join(words)


def _sentence(option: Option) -> str:
    """The option's own help, or the description of its setting, with the values if they are few."""
    sentence = option.sentence
    if not sentence and option.key is not None:
        sentence = setting_infos(FIRST_RUN[0])[option.key].description
        allowed = names(None, option.key)
        if allowed and option.values is None:
            sentence = f"{sentence} One of {', '.join(allowed)}."
    return _escaped(sentence)


def _epilog() -> str:
    """Modes, layers of settings, exit codes and examples."""
    indent = "  "
    layers = textwrap.wrap(
        " < ".join(LAYERS), _WIDTH, initial_indent=indent, subsequent_indent=indent
    )
    lines = [
        *_section("modes", [(name, presets.mode(name).sentence) for name in presets.modes()]),
        "",
        "layers of settings; a later layer overrides an earlier one:",
        *layers,
        *_section("exit codes", [(str(code), text) for code, text in exit_codes.MEANINGS.items()]),
        "",
        "examples:",
    ]
    for example in _EXAMPLES:
        lines.append(f"  {PROGRAM} {example}".rstrip())
    return "\n".join(lines)


def _section(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    lines = ["", f"{title}:"]
    for name, text in rows:
        first, *others = textwrap.wrap(text, _WIDTH - _COLUMN) or [""]
        lines.append(f"  {name:<{_COLUMN - 3}} {first}".rstrip())
        lines += [" " * _COLUMN + line for line in others]
    return lines


def _escaped(text: str) -> str:
    """`text` for argparse, which formats help with `%`."""
    return text.replace("%", "%%")
