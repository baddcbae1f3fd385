"""A command line: the record of a command, and its parsed arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, shown
from launcher.base.disk import SHOWN, problem_of
from launcher.config.options import (
    DEFAULT,
    EMPTY,
    FORCE,
    FROM,
    HELP,
    INPUT,
    JSON,
    OPTIONS,
    PATH_VALUES,
    RESUME,
    STAGE,
    VERSION,
    Command,
    split_options,
)
from launcher.config.provenance import CLI_LAYER, STAGED_MODE, CliArgs, Origin, Setting

RUN = Command(
    DEFAULT,
    "train a model; the default command, also: train",
    "launcher.commands.run",
    (*OPTIONS, VERSION),
    adds_errors=True,
)


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line."""

    command: Command
    argument: str = ""
    """The RUN of resume, the KEY of explain, the WHAT of list; empty: none was typed."""
    args: CliArgs = field(default_factory=CliArgs)
    flags: frozenset[str] = frozenset()
    """Given options without a value that are not settings: --dry-run, --json, --schema, --help."""
    out: Path | None = None
    diagnostics: Sequence[Diagnostic] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    """Values of options that only this command has, such as "--format": "hf"."""
    more: Sequence[str] = ()
    """The other RUNs of report and watch."""
    operand: str = ""
    """The PATH of data check, the hf:ID of data fetch; empty: none was typed."""
    passthrough: Sequence[str] = ()
    """Options after `--`, for another program."""
    argv: Sequence[str] = ()
    """All arguments after the command's name, as typed."""

    @property
    def as_json(self) -> bool:
        """Whether the output is for programs."""
        return JSON.flag in self.flags


def parse(command: Command, argv: Sequence[str]) -> CommandLine:
    """Parse the arguments of `command`; all errors are in the result's `diagnostics`."""
    end = argv.index("--") if command.passthrough is not None and "--" in argv else len(argv)
    arguments = list(argv[:end])
    if "-h" in arguments or HELP.flag in arguments:
        return CommandLine(command, flags=frozenset({HELP.flag}))
    by_flag = {option.flag: option for option in command.options}
    given, modes = dict[str, list[str]](), dict[str, str]()
    positionals, wrong = list[str](), list[tuple[int, Sequence[str]]]()
    for position, words, is_known in split_options(command, arguments):
        flag, is_joined, value = words[0].partition("=")
        option = by_flag.get(flag)
        has_value = bool(is_joined) or len(words) > 1
        if option is not None and has_value == (option.metavar is not None):
            value = value if is_joined else words[-1]
            given.setdefault(flag, []).append(value)
            if option.mode or option.key == "mode":
                modes.pop(flag, None)  # of one option, the last value counts
                modes[flag] = option.mode or value
        elif option is None and is_known:
            positionals.append(words[0])
        else:
            wrong.append((position, words))
    argument, *more = positionals[: command.most(positionals)] or [""]
    operand = more.pop() if command.operand and more else ""
    diagnostics: list[Diagnostic] = []
    may_be_wrong = wrong or positionals or command.argument or len({*modes.values()}) > 1
    if may_be_wrong or any(map(EMPTY.fullmatch, arguments)):
        from launcher.config import input_errors

        diagnostics += input_errors.of_arguments(command, arguments, wrong, positionals, modes)
    # Paths that no file can have: further checks would open them. Those of settings are checked by key.
    texts = [(command.name, text) for text in (argument, *more, operand)]
    files = [o.flag for o in command.options if o.key is None and o.values in PATH_VALUES and o.flag != INPUT]
    texts += [(flag, text) for flag in files for text in given.get(flag, ())]
    for name, text in texts:
        key, _, path = text.partition("=") if name == "--set" else (None, "", text)
        if problem := path and problem_of(path):
            message, where = f"{name} {shown(text[:SHOWN])} {problem}", f"command line: {name} {text}"
            diagnostics.append(Diagnostic(message, key=key, value=text, where=where))
            command = replace(command, adds_errors=False)
    last = {flag: values[-1] for flag, values in given.items()}
    options, filled, stage = {}, {}, last.get(STAGE.flag)
    for option in command.options:
        if option.flag in last and option.key is not None and option.key not in ("mode", "engine.name"):
            text = ",".join(given[option.flag]) if option.repeats else last[option.flag]
            options[option.key] = (option.flag, text if option.metavar else "true")
    mode_option, mode = [("--mode", None), *modes.items()][-1]
    if stage is not None:
        filled["stages"] = Setting([stage], Origin(CLI_LAYER, f"{STAGE.flag} {stage}"))
        mode_option, mode = (mode_option, mode) if modes else (f"{STAGE.flag} {stage}", STAGED_MODE)
    is_resume = command.name == "resume"
    args = CliArgs(
        model=last.get("--model"),
        mode=mode,
        mode_option=mode_option,
        engine=last.get("--engine"),
        configs=[Path(path) for path in given.get("--config", ())],
        sets=given.get("--set", []),
        options=options,
        resume=argument or None if is_resume else last.get(RESUME.flag),
        resume_option="resume" if is_resume else RESUME.flag,
        reset=given.get("--reset", []),
        filled=filled,
        weights=last.get(FROM.flag),
        force=FORCE.flag in given,
    )
    return CommandLine(
        command=command,
        argument=argument,
        args=args,
        flags=frozenset(f for f in given if not (by_flag[f].metavar or by_flag[f].key or by_flag[f].mode)),
        out=Path(last["--out"]) if last.get("--out") else None,
        diagnostics=diagnostics,
        values={f: text for f, text in last.items() if by_flag[f].metavar and by_flag[f] not in OPTIONS},
        more=more,
        operand=operand,
        passthrough=argv[end + 1 :],
        argv=list(argv),
    )
