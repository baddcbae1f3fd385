"""Shell scripts that complete the command `gearshift`, written from the tables in use."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence

from launcher.cli.help import sentence
from launcher.cli.options import HELP, Option
from launcher.commands.catalog import COMMANDS, DEFAULT, Command
from launcher.config.names import choices, names

_TOOL = "gearshift"
_FOLDER = "RUN"
"""The word of a command that is a run folder."""

_BASH = """\
# Completes {tool} in bash; put  source <({tool} completion bash)  into ~/.bashrc
_{tool}() {{
    local line=${{COMP_LINE:0:COMP_POINT}} word before command={default} found= breaks= kind=words
    local -a words
    word=${{line##*[[:space:]]}}
    read -ra words <<<"${{line%"$word"}}"
    before=${{words[${{#words[@]}} - 1]}}
    case ${{words[1]-}} in
        {commands_or}) command=${{words[1]}} ;;
    esac
    case $word in
        --*=*) before=${{word%%=*}} word=${{word#*=}} ;;
    esac
    case $before:$word in
{set_values}
        --set:*) found={keys} kind=open ;;
{option_values}
        *) case $command in
{command_words}
            esac
            ((${{#words[@]}} == 1)) && found+={commands_more} ;;
    esac
    COMPREPLY=()
    case $kind in
        words | open) COMPREPLY=($(compgen -W "$found" -- "$word")) ;;
        *)
            local IFS=$'\\n'
            compopt -o filenames 2>/dev/null
            COMPREPLY=($(compgen "$kind" -- "$word")) ;;
    esac
    [[ $kind == open ]] && compopt -o nospace 2>/dev/null
    # Readline has its own idea of where a word begins; what lies before that it does not want back.
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+==
    if [[ -n $breaks && $kind != -* ]]; then
        COMPREPLY=("${{COMPREPLY[@]#"${{word%"${{word##*[$breaks]}}"}}"}}")
    fi
}}
complete -F _{tool} {tool}
"""

_ZSH = """\
#compdef {tool}
# Completes {tool} in zsh; put  source <({tool} completion zsh)  into ~/.zshrc, below compinit
_{tool}_set() {{
    local -a found
    case $PREFIX in
{set_values}
        *) found=({keys}); compadd -S '' -a found; return ;;
    esac
    compadd -a found
}}
_{tool}() {{
    local command={default}
    (( CURRENT > 2 )) && [[ $words[2] == ({commands_or}) ]] && command=$words[2]
    case $command in
{command_words}
    esac
}}
if [[ $funcstack[1] == _{tool} ]]; then _{tool} "$@"; else compdef _{tool} {tool}; fi
"""


def bash() -> str:
    """For bash 3.2 and later."""
    return _BASH.format(
        tool=_TOOL,
        default=DEFAULT,
        commands_or=" | ".join(COMMANDS),
        commands_more=shlex.quote(" " + " ".join(COMMANDS)),
        keys=shlex.quote(" ".join(f"{key}=" for key in names("keys"))),
        set_values="\n".join(
            f"        --set:{key}=*) found={shlex.quote(' '.join(values))} ;;"
            for key, values in _closed()
        ),
        option_values="\n".join(_bash_option(option) for option in _with_values()),
        command_words="\n".join(_bash_command(command) for command in COMMANDS.values()),
    )


def zsh() -> str:
    """For zsh 5."""
    return _ZSH.format(
        tool=_TOOL,
        default=DEFAULT,
        commands_or="|".join(COMMANDS),
        keys=" ".join(shlex.quote(f"{key}=") for key in names("keys")),
        set_values="\n".join(
            f"        {key}=*) found=({' '.join(values)}) ;;" for key, values in _closed()
        ),
        command_words="\n".join(_zsh_command(command) for command in COMMANDS.values()),
    )


def fish() -> str:
    """For fish 3."""
    return "\n".join(_fish()) + "\n"


SCRIPTS: dict[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def _closed() -> Iterator[tuple[str, list[str]]]:
    """`KEY=VALUE` of every setting that is one of a few."""
    for key in names("keys"):
        if found := choices(key):
            yield key, [f"{key}={value}" for value in found]


def _with_values() -> list[Option]:
    """The options that take a value, each once."""
    options = {o.flag: o for command in COMMANDS.values() for o in command.options}
    return [o for o in options.values() if o.metavar and o.values != "keys"]


def _values(option: Option) -> list[str]:
    """The values of an option, where they are a closed list."""
    if option.values in ("models", "modes", "engines", "stages", "parts", "trackers"):
        return names(option.values)
    return choices(option.key) if option.key and option.values is None else []


def _words(command: Command) -> list[str]:
    """What may stand where no option waits for its value."""
    keys = names("keys") if command.word == "KEY" else []
    flags = [option.flag for option in (*command.options, HELP)]
    return [*command.words, *keys, *flags]


def _bash_command(command: Command) -> str:
    found = f"found={shlex.quote(' '.join(_words(command)))}"
    if command.word == _FOLDER:
        found += "; [[ $word == -* ]] || kind=-d"
    if command.operand:
        first = " || ".join(f"${{words[2]-}} == {word}" for word in _with_operand(command))
        found += f"; [[ ( {first} ) && $word != -* ]] && kind=-f"
    return f"                {command.name}) {found} ;;"


def _bash_option(option: Option) -> str:
    kind = {"files": "-f", "paths": "-f", "folders": "-d"}.get(option.values or "")
    if kind is not None:
        return f"        {option.flag}:*) kind={kind} ;;"
    return f"        {option.flag}:*) found={shlex.quote(' '.join(_values(option)))} ;;"


def _zsh_command(command: Command) -> str:
    specs = [_zsh_option(option) for option in (*command.options, HELP)]
    if command.name == DEFAULT:
        specs.append(f"1: :({' '.join(COMMANDS)})")
    elif command.word == _FOLDER:
        specs += ["1: : ", "2: :_files -/"]
    elif command.word:
        specs += ["1: : ", f"2: :({' '.join([*command.words, *_keys(command)])})"]
        specs += ["3: :_files"] if command.operand else []
    quoted = " \\\n            ".join(shlex.quote(spec) for spec in specs)
    return f"        {command.name}) _arguments \\\n            {quoted} ;;"


def _with_operand(command: Command) -> list[str]:
    return [word for word in command.words if command.takes_operand(word)]


def _keys(command: Command) -> list[str]:
    return names("keys") if command.word == "KEY" else []


def _zsh_option(option: Option) -> str:
    said = _escaped(sentence(option), "[]:")
    if option.metavar is None:
        return f"{option.flag}[{said}]"
    actions = {
        "files": "_files",
        "paths": "_files",
        "folders": "_files -/",
        "keys": f"_{_TOOL}_set",
    }
    listed = " ".join(_escaped(value, ":") for value in _values(option))
    action = actions.get(option.values or "", f"({listed})" if listed else " ")
    repeats = "*" if option.repeats else ""
    return f"{repeats}{option.flag}=[{said}]:{_escaped(option.metavar, '[]:')}:{action}"


def _escaped(text: str, letters: str) -> str:
    for letter in letters:
        text = text.replace(letter, f"\\{letter}")
    return text


def _fish() -> Iterator[str]:
    yield f"# Completes {_TOOL} in fish; put  {_TOOL} completion fish | source  into config.fish"
    yield f"complete -c {_TOOL} -f"
    for command in COMMANDS.values():
        said = shlex.quote(command.sentence)
        yield f"complete -c {_TOOL} -n __fish_use_subcommand -a {command.name} -d {said}"
    for command in COMMANDS.values():
        others = [name for name in COMMANDS if name != DEFAULT]
        condition = (
            f"not __fish_seen_subcommand_from {' '.join(others)}"
            if command.name == DEFAULT
            else f"__fish_seen_subcommand_from {command.name}"
        )
        start = f"complete -c {_TOOL} -n {shlex.quote(condition)}"
        if words := [*command.words, *_keys(command)]:
            yield f"{start} -a {shlex.quote(' '.join(words))}"
        if command.word == _FOLDER:
            yield f"{start} -a '(__fish_complete_directories)'"
        if command.operand:
            first = " ".join(_with_operand(command))
            behind = f"{condition}; and __fish_seen_subcommand_from {first}"
            yield f"complete -c {_TOOL} -n {shlex.quote(behind)} -F"
        for option in (*command.options, HELP):
            yield f"{start} {_fish_option(option)}"


def _fish_option(option: Option) -> str:
    parts = ["-l", option.flag[2:], "-d", shlex.quote(sentence(option))]
    if option.metavar is None:
        return " ".join(parts)
    if option.values in ("files", "paths", "folders"):
        return " ".join([*parts, "-r", "-F"])
    values: Sequence[str] = _values(option)
    if option.values == "keys":
        closed = [value for _, found in _closed() for value in found]
        values = [*(f"{key}=" for key in names("keys")), *closed]
    return " ".join([*parts, "-x", *(["-a", shlex.quote(" ".join(values))] if values else [])])
