"""What --help prints: from the tables of commands, options, settings, modes and engines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from launcher.base import exit_codes
from launcher.base.diagnostics import PROGRAM
from launcher.cli.options import HELP, Option
from launcher.commands.catalog import COMMANDS, DEFAULT, Command
from launcher.config import presets
from launcher.config.leaves import leaves
from launcher.config.names import choices, names
from launcher.config.resolve import PRECEDENCE
from launcher.config.selection import FIRST_RUN

_WIDTH = 98
_COLUMN = 26
_EXAMPLES = (
    "",
    "--lite --max-steps 20",
    "--engine zero2-offload --mode resource-efficient --nproc 2",
    "--model language:full --data notes/ --set optim.weight_decay=0.05",
    "explain optim.lr --fast",
)


def render(command: Command) -> str:
    """The help of one command; that of `run` shows all commands."""
    return "\n".join(_lines(command)) + "\n"


def _lines(command: Command) -> Iterator[str]:
    if command.name == DEFAULT:
        yield f"{PROGRAM} [COMMAND] [OPTIONS]"
        yield ""
        yield "Trains a model on what stands here. You pick a model, a mode (what it may cost) and"
        yield "an engine (how it is laid on the hardware); the rest follows and is shown first."
        yield from _section("commands", [(one.name, one.sentence) for one in COMMANDS.values()])
    else:
        behind = f" [-- OPTIONS OF {command.behind}]" if command.behind else ""
        yield f"{PROGRAM} {command.name}{_word(command)} [OPTIONS]{behind}"
        yield ""
        yield f"{command.sentence[0].upper()}{command.sentence[1:]}."
        if len(command.words) > 1 and command.operand is None:
            yield from _section(f"{command.word} is one of", [(one, "") for one in command.words])
    for group in dict.fromkeys(option.group for option in (*command.options, HELP)):
        rows = [_row(option) for option in (*command.options, HELP) if option.group == group]
        yield from _section(group, rows)
    if command.name == DEFAULT:
        yield from _section(
            "modes", [(name, presets.mode(name).sentence) for name in names("modes")]
        )
        yield from _ends()


def _word(command: Command) -> str:
    """What it is given beside options, each with the blank before it."""
    if command.word is None:
        return ""
    if command.operand is not None:
        said = [f"{w} {command.operand}" if command.takes_operand(w) else w for w in command.words]
        return f" {' | '.join(said)}"
    word = command.words[0] if len(command.words) == 1 else command.word
    return f" {word}" if command.word_required else f" [{word}]"


def _ends() -> Iterator[str]:
    yield ""
    yield "one setting in several places: the later of these counts"
    yield from textwrap.wrap(
        " < ".join(PRECEDENCE), _WIDTH, initial_indent="  ", subsequent_indent="  "
    )
    yield from _section(
        "exit codes", [(str(code), text) for code, text in exit_codes.MEANINGS.items()]
    )
    yield ""
    yield "examples"
    for words in _EXAMPLES:
        yield f"  {PROGRAM} {words}".rstrip()


def _section(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield ""
    yield title
    for left, right in rows:
        lines = textwrap.wrap(right, _WIDTH - _COLUMN - 2) or [""]
        if len(left) > _COLUMN - 2:
            yield f"  {left}"
            left = ""
        yield f"  {left:<{_COLUMN - 1}} {lines[0]}".rstrip()
        yield from (" " * (_COLUMN + 2) + line for line in lines[1:])


def _row(option: Option) -> tuple[str, str]:
    return f"{option.flag} {option.metavar or ''}".rstrip(), sentence(option)


def sentence(option: Option) -> str:
    """What the setting says of itself, and its options where they are few."""
    if option.key is None:
        return option.sentence
    sentence = leaves(FIRST_RUN[0])[option.key].description
    allowed = choices(option.key)
    if allowed and option.values is None:
        return f"{sentence} One of {', '.join(allowed)}."
    return sentence
