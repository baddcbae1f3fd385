"""The help of each command."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM
from gearshift.launcher.config import presets
from gearshift.launcher.config.command_line import DEFAULT, HELP, Command, Option
from gearshift.launcher.config.commands import COMMANDS
from gearshift.launcher.config.input_errors import names
from gearshift.launcher.config.provenance import LAYERS
from gearshift.launcher.config.schema import FIRST_RUN, setting_infos

_WIDTH = 100
_COLUMN = 26
_INDENT = "  "
_EXAMPLES = (
    "",
    "--lite --max-steps 20",
    "--engine zero2-offload --mode resource-efficient --nproc 2",
    "--model language:full --data notes/ --set optim.weight_decay=0.05",
    "explain optim.lr --fast",
    "help resume",
)
_ABOUT = """\
Train a model on this machine. Choose a model, a mode (how much time, memory and data training may
cost) and an engine (how training uses the hardware). All other settings have defaults; `explain`
shows them."""


def render_help(command: Command) -> str:
    """The help of one command; the help of `run` lists all commands."""
    is_default = command.name == DEFAULT
    call = "[COMMAND] [OPTIONS]" if is_default else f"{command.name} {_usage(command)}"
    about = _ABOUT if is_default else f"{command.sentence[0].upper()}{command.sentence[1:]}."
    lines = [f"usage: {PROGRAM} {call}", "", *textwrap.wrap(about, _WIDTH)]
    if is_default:
        rows = [(each.name, each.sentence) for each in COMMANDS.values()]
        lines += _section("commands", rows)
    groups: dict[str, list[tuple[str, str]]] = {}
    for option in (*command.options, HELP):
        form = f"-h, {option.form}" if option is HELP else option.form
        groups.setdefault(option.group, []).append((form, description(option)))
    for title, rows in groups.items():
        lines += _section(title, rows)
    if is_default:
        lines += _modes_layers_codes_and_examples()
    return "\n".join([*lines, ""])


def _usage(command: Command) -> str:
    """The positional arguments, and what else may follow."""
    words = []
    if command.choices:
        words.append(f"{{{','.join(command.choices)}}}")
    elif command.argument:
        words.append(command.argument)
    words += [f"[{name.strip('[]')}]" for name in dict.fromkeys(command.operands.values())]
    words.append("[OPTIONS]")
    if command.passthrough:
        words.append(f"[-- OPTIONS OF {command.passthrough}]")
    return " ".join(words)


def description(option: Option) -> str:
    """The option's own help, or the description of its setting, with the values if they are few."""
    sentence = option.sentence
    if not sentence and option.key is not None:
        sentence = setting_infos(FIRST_RUN[0])[option.key].description
        allowed = names(None, option.key)
        if allowed and option.values is None:
            sentence = f"{sentence} One of {', '.join(allowed)}."
    return sentence


def _modes_layers_codes_and_examples() -> list[str]:
    layers = " < ".join(LAYERS)
    examples = [f"{PROGRAM} {example}".rstrip() for example in _EXAMPLES]
    return [
        *_section("modes", [(name, presets.mode(name).sentence) for name in presets.modes()]),
        "",
        "layers of settings; a later layer overrides an earlier one:",
        *textwrap.wrap(layers, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT),
        *_section("exit codes", [(str(code), text) for code, text in exit_codes.MEANINGS.items()]),
        "",
        "examples:",
        *[f"{_INDENT}{example}" for example in examples],
    ]


def _section(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    lines = ["", f"{title}:"]
    for name, text in rows:
        first, *others = textwrap.wrap(text, _WIDTH - _COLUMN) or [""]
        lines.append(f"{_INDENT}{name:<{_COLUMN - 3}} {first}".rstrip())
        lines += [" " * _COLUMN + line for line in others]
    return lines
