"""The command line: commands and options, its parsed arguments, and their errors."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base.diagnostics import PROGRAM, Diagnostic, nearest_match, shown
from gearshift.launcher.base.disk import SHOWN, problem_of
from gearshift.launcher.config import presets
from gearshift.launcher.config.provenance import (
    CLI_LAYER,
    STAGED_MODE,
    CliArgs,
    Origin,
    ResetPart,
    Setting,
)
from gearshift.launcher.config.schema import AUTO, config_of, setting_infos
from gearshift.models.base import SplitName
from gearshift.models.catalog import FAMILIES, stages_of
from gearshift.training.trackers.catalog import TRACKERS

Values = Literal[
    "models", "modes", "engines", "stages", "keys", "parts", "trackers", "files", "folders", "paths"
]

PATH_VALUES = ("models", "files", "folders", "paths", None)
"""The kinds that may be paths; None: no kind is declared."""


@dataclass(frozen=True)
class Option:
    """One option. The help of an option that sets a setting is the setting's description."""

    form: str
    """As in help, `--epochs N`; one without a value alone, `--json`."""
    sentence: str = ""
    """Help; empty: the description of the setting."""
    key: str | None = None
    """The setting that it sets."""
    repeats: bool = False
    values: Values | None = None
    """The kind of values for completion."""
    group: str = "output"
    mode: str | None = None
    """The mode that it selects."""

    @property
    def flag(self) -> str:
        """Its name: `--epochs`."""
        return self.form.partition(" ")[0]

    @property
    def metavar(self) -> str | None:
        """Its value in help; None: it takes none."""
        return self.form.partition(" ")[2] or None


def in_group(name: str, *options: Option) -> Iterator[Option]:
    """The options under a heading of help."""
    return (replace(option, group=name) for option in options)


MODEL = "model, data and mode"
TRAINING = "training"
OUTPUT = "output"


def out_option(sentence: str) -> Option:
    """The option --out of a command, with its own help."""
    return Option("--out DIR", sentence, values="folders")


JSON = Option("--json", "Print JSON instead of text.")
HELP = Option("--help", "Print this help and exit.")
VERSION = Option("--version", "Print the versions of the libraries and exit.")
OPTIONS = (
    *in_group(
        MODEL,
        Option(
            "--model FAMILY[:SIZE]",
            "Model family and size, see `list models`; or a custom task, "
            "package.module:Class[:SIZE], see `new-task`.",
            values="models",
        ),
        Option(
            "--data PATH",
            "File or folder in a format of the family, or its built-in data; see "
            "`explain data.path` and `data check`.",
            "data.path",
            values="paths",
        ),
        Option("--continuous-learning", key="continual.enabled"),
        Option(
            "--max-hours N",
            "With --continuous-learning: stop after N hours and save a checkpoint.",
            "continual.max_hours",
        ),
        Option("--download-data", key="download.fetch"),
        Option("--mode MODE", key="mode", values="modes"),
        *(
            Option(f"--{mode}", f"Short for --mode {mode}.", mode=mode)
            for mode in ("lite", "resource-efficient", "fast", "ultra-fast", "benchmark")
        ),
        Option(
            "--stage NAME",
            "Train this stage only, in mode staged; see `list models`.",
            values="stages",
        ),
        Option(
            "--from RUN",
            "Initialize the weights of the stage from a run, a staged run, a checkpoint, an "
            "export or a safetensors file.",
            values="paths",
        ),
    ),
    *in_group(
        TRAINING,
        Option("--epochs N", key="train.epochs"),
        Option("--max-steps N", key="train.max_steps"),
        Option("--batch-size N", key="train.micro_batch"),
        Option("--seq-len N", key="data.seq_len"),
        Option("--lr X", key="optim.lr"),
        Option("--seed N", key="train.seed"),
        Option("--num-workers N", key="loader.workers"),
    ),
    *in_group(
        "hardware",
        Option("--engine ENGINE", key="engine.name", values="engines"),
        Option("--nproc N", key="engine.nproc"),
        Option("--max-restarts N", key="engine.max_restarts"),
        Option("--precision NAME", key="precision"),
        Option(
            "--force", "Start a run whose weights, gradients and optimizer state do not fit here."
        ),
        Option("--deterministic", key="train.deterministic"),
        Option("--debug", key="train.debug"),
    ),
    *in_group(
        "all other settings",
        Option(
            "--config FILE",
            "Read settings from a YAML or JSON file; a later file overrides an earlier one.",
            repeats=True,
            values="files",
        ),
        Option(
            "--set KEY=VALUE",
            "Set one setting by its dotted key: optim.betas='[0.9, 0.99]'; see `explain`.",
            repeats=True,
            values="keys",
        ),
        Option("--ds-config FILE", key="engine.ds_config", values="files"),
    ),
    *in_group(
        "resume",
        Option(
            "--resume auto|DIR|STEP",
            "Resume the newest run of this model (auto), a run folder or checkpoint, or the newest "
            "run at a step.",
            values="folders",
        ),
        Option(
            "--reset PART",
            "State to reinitialize instead of restoring: optimizer, schedule or data.",
            repeats=True,
            values="parts",
        ),
    ),
    out_option("Run folder. Default: runs/<model>-<mode>-<engine>-<time>."),
    Option("--track NAME[:PROJECT]", key="track", repeats=True, values="trackers"),
    Option("--profile N", key="log.profile"),
    Option("--dry-run", "Show the resolved settings and the plan; start and write nothing."),
    JSON,
)
BY_FLAG = {option.flag: option for option in OPTIONS}
FORCE = BY_FLAG["--force"]
RESUME = BY_FLAG["--resume"]
STAGE = BY_FLAG["--stage"]
FROM = BY_FLAG["--from"]
GPUS = Option("--gpus N", "GPUs of each node.")
GPU = Option("--gpu NAME", "Kind of GPU, such as H200: its memory and speed.")
GPU_MEMORY = Option("--gpu-memory SIZE", "Memory of a GPU, such as 24GiB.")
RAM = Option("--ram SIZE", "Main memory of each node, such as 64GiB.")
NODES = Option("--nodes M", "Nodes. Default: 1.")
PLANNED_MACHINE = (GPUS, GPU, GPU_MEMORY, RAM, NODES)
"""The options of `plan` for another machine."""
INPUT = "--input"
"""What `predict` reads."""
SPLITS: tuple[str, ...] = get_args(SplitName)
DEFAULT_SPLIT = "test"


def names(kind: str | None, key: str | None = None) -> list[str]:
    """All names of a kind of values, see Values; without a kind, what the setting `key` may be."""
    if kind == "models":
        return [
            *FAMILIES,
            *(f"{family}:{size}" for family in FAMILIES for size in config_of(family).SIZES),
        ]
    if kind == "stages":
        return list(dict.fromkeys(stage.name for family in FAMILIES for stage in stages_of(family)))
    if kind == "keys":
        return sorted({key for family in FAMILIES for key in setting_infos(family)})
    closed = {"modes": presets.modes(), "engines": (*ENGINES, AUTO), "trackers": TRACKERS}
    closed["parts"] = get_args(ResetPart)
    infos = (setting_infos(family).get(key or "") for family in FAMILIES if kind is None)
    allowed = next((info.allowed for info in infos if info is not None), None)
    return [*closed.get(kind or "", allowed if isinstance(allowed, tuple) else ())]


RUN_ARGUMENTS = {
    "resume": "a run folder, a checkpoint, the number of a step, or auto",
    "verify": "a run folder or a checkpoint",
    "evaluate": "a run folder or a checkpoint",
    "export": "a run folder or a checkpoint",
    "watch": "run folders, or a folder of runs",
    "predict": "a run folder, a checkpoint, or an export as safetensors",
    "report": "run folders",
    "track": "a run folder",
}
"""What RUN may be, by command."""
DEFAULT = "run"
"""The command of a command line that names none."""
_NUMBER = re.compile(r"-[0-9.]")
_UNDECODED = re.compile("[\udc80-\udcff]")
"""A byte that Python could not decode, as it stands in an argument."""
_EMPTY = re.compile(r"(--[^=]*=)?")
"""An argument without a value that it needs."""


@dataclass(frozen=True)
class Command:
    """One command of the command line; its module is imported only when it runs."""

    name: str
    sentence: str
    module: str
    """Has `main(command_line) -> int`, the exit code."""
    options: tuple[Option, ...]
    argument: str | None = None
    """The positional argument, as help shows it."""
    choices: tuple[str, ...] = ()
    """The valid values of the argument; empty: any value."""
    allowed: str = ""
    """Describes the valid values if `choices` is empty."""
    requires_argument: bool = True
    repeats_argument: bool = False
    """Whether there may be several."""
    operand: str | None = None
    """The second positional argument, as help shows it; required."""
    optional_operand: Mapping[str, str] = field(default_factory=dict)
    """The `choices` that need no operand, and the one they take, as help shows it."""
    adds_errors: bool = False
    """Whether `main` finds further errors, and raises those of the command line with them."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Its own option for one of another command or program."""
    reader: str | None = None
    """The command that takes the runs that people type after this one, which takes no argument."""
    passthrough: str | None = None
    """The program that receives the options after `--`; None: `--` is not accepted."""

    @property
    def call(self) -> str:
        """The command as a user types it."""
        return PROGRAM if self.name == DEFAULT else f"{PROGRAM} {self.name}"

    def most(self, positionals: Sequence[str]) -> int:
        """How many of these positional arguments it takes."""
        return (
            len(positionals) if self.repeats_argument else bool(self.argument) + bool(self.operand)
        )

    def requires_operand(self, argument: str | None) -> bool:
        """Whether an operand has to follow `argument`."""
        return self.operand is not None and argument not in self.optional_operand


def split_options(command: Command, argv: Sequence[str]) -> Iterator[tuple[int, list[str], bool]]:
    """Each argument with its position, and whether the command takes it.

    With an option comes its value, also a negative number, which argparse takes for an option;
    with an unknown one what is most likely its value.
    """
    takes_value = {option.flag: option.metavar is not None for option in command.options}
    index = 0
    while index < len(argv):
        argument = argv[index]
        following = "".join(argv[index + 1 : index + 2])
        is_option = argument.startswith("-") and argument != "-"
        is_known = not is_option or argument.partition("=")[0] in takes_value
        has_value = bool(_NUMBER.match(following))
        if index + 1 < len(argv) and takes_value.get(argument, not is_known):
            has_value = has_value or not following.startswith("-")
        words = (
            [argument, following] if is_option and "=" not in argument and has_value else [argument]
        )
        yield index + 1, words, is_known
        index += len(words)


RUN = Command(
    DEFAULT,
    "train a model; the default command, also: train",
    "gearshift.launcher.commands.run",
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
    """The options that were given."""
    out: Path | None = None
    diagnostics: Sequence[Diagnostic] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    """Values of options that only this command has, such as "--format": "hf"."""
    more: Sequence[str] = ()
    """The other RUNs of report and watch; the operand of data."""
    passthrough: Sequence[str] = ()
    """Options after `--`, for another program."""
    argv: Sequence[str] = ()
    """All arguments after the command's name, as typed."""

    @property
    def as_json(self) -> bool:
        """Whether the output is for programs."""
        return JSON.flag in self.flags

    @property
    def operand(self) -> str:
        """The PATH of data check, the hf:ID of data fetch; empty: none was typed."""
        return next(iter(self.more), "")


def parse(command: Command, argv: Sequence[str]) -> CommandLine:
    """Parse the arguments of `command`; all errors are in the result's `diagnostics`."""
    end = argv.index("--") if command.passthrough is not None and "--" in argv else len(argv)
    arguments = list(argv[:end])
    if "-h" in arguments or HELP.flag in arguments:
        return CommandLine(command, flags=frozenset({HELP.flag}))
    by_flag = {option.flag: option for option in (*command.options, HELP)}
    given: dict[str, list[str]] = {}
    modes: dict[str, str] = {}
    positionals: list[str] = []
    diagnostics = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if _EMPTY.fullmatch(argument):  # most likely a variable of the shell that is not set
            flag = argument or before
            where = argument or f'{before} ""'.strip()
            diagnostics.append(_error(f"an empty value after '{flag}'", where, value=""))
    for position, words, is_known in split_options(command, arguments):
        flag, is_joined, value = words[0].partition("=")
        option = by_flag.get(flag)
        has_value = bool(is_joined) or len(words) > 1
        if option is not None and has_value != (option.metavar is not None):
            message = f"option '{flag}' {'needs a' if option.metavar else 'takes no'} value"
            diagnostics.append(_error(message, flag, allowed=option.form))
        elif option is not None:
            value = "true" if option.metavar is None else value if is_joined else words[-1]
            given.setdefault(flag, []).append(value)
            if option.mode or option.key == "mode":
                modes.pop(flag, None)  # of one option, the last value counts
                modes[flag] = option.mode or value
        elif is_known:
            positionals.append(words[0])
        else:
            diagnostics.append(_unknown_option(command, words, position))
    if len({*modes.values()}) > 1:
        where = ", and ".join(
            f"--mode {mode}" if flag == "--mode" else flag for flag, mode in modes.items()
        )
        message = f"mode is set twice, to {' and to '.join(dict.fromkeys(modes.values()))}"
        diagnostics.append(_error(message, where, key="mode", fix="remove one of them"))
    diagnostics += _wrong_positionals(command, positionals)
    undecoded = [text for text in argv if _UNDECODED.search(text)]
    if undecoded:  # a file that is written could not name it
        where = shlex.join(undecoded)
        allowed = "UTF-8; rename a file with such a name"
        diagnostics = [
            _error("an argument has a byte that is no UTF-8 text", where, allowed=allowed)
        ]
        alone = replace(command, adds_errors=False)
        return CommandLine(alone, flags=frozenset(given), diagnostics=diagnostics)
    if positionals and command.reader is not None:  # what else is wrong depends on what is meant
        command = replace(command, adds_errors=False)
    argument, *more = positionals[: command.most(positionals)] or [""]
    # Paths that no file can have: further checks would open them. Those of settings are checked by key.
    texts = [(command.name, text) for text in (argument, *more)]
    files = [
        o.flag
        for o in command.options
        if o.key is None and o.values in PATH_VALUES and o.flag != INPUT
    ]
    texts += [(flag, text) for flag in files for text in given.get(flag, ())]
    for name, text in texts:
        key, _, path = text.partition("=") if name == "--set" else (None, "", text)
        if problem := path and problem_of(path):
            message = f"{name} {shown(text[:SHOWN])} {problem}"
            where = f"command line: {name} {text}"
            diagnostics.append(Diagnostic(message, key=key, value=text, where=where))
            command = replace(command, adds_errors=False)
    last = {flag: values[-1] for flag, values in given.items()}
    mode_option, mode = [("--mode", None), *modes.items()][-1]
    filled: dict[str, Setting] = {}
    is_resume = command.name == "resume"
    if (stage := last.get(STAGE.flag)) is not None:
        filled["stages"] = Setting([stage], Origin(CLI_LAYER, f"{STAGE.flag} {stage}"))
        mode_option, mode = (mode_option, mode) if modes else (f"{STAGE.flag} {stage}", STAGED_MODE)
    args = CliArgs(
        model=last.get("--model"),
        mode=mode,
        mode_option=mode_option,
        engine=last.get("--engine"),
        configs=[Path(path) for path in given.get("--config", ())],
        sets=given.get("--set", []),
        options={
            o.key: (o.flag, ",".join(given[o.flag]) if o.repeats else last[o.flag])
            for o in command.options
            if o.key not in (None, "mode", "engine.name") and o.flag in given
        },
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
        flags=frozenset(given),
        out=Path(last["--out"]) if last.get("--out") else None,
        diagnostics=diagnostics,
        values={
            f: text for f, text in last.items() if by_flag[f].metavar and by_flag[f] not in OPTIONS
        },
        more=more,
        passthrough=argv[end + 1 :],
        argv=list(argv),
    )


def arguments(args: CliArgs) -> list[str]:
    """The options of a new run with these arguments."""
    named = {
        "--model": args.model,
        "--mode": args.mode,
        "--engine": args.engine,
        FROM.flag: args.weights,
    }
    pairs = [(flag, text) for flag, text in named.items() if text is not None]
    pairs += [(STAGE.flag, stage) for setting in args.filled.values() for stage in setting.value]
    pairs += [*(("--config", str(path)) for path in args.configs), *args.options.values()]
    words = list[str]()
    for flag, text in (*pairs, *(("--set", text) for text in args.sets)):
        value = [] if BY_FLAG[flag].metavar is None else [text]
        words += [f"{flag}={text}"] if text.startswith("-") else [flag, *value]
    return words


_ORDER = 999
"""Sorts these errors after those of files and before those of single settings."""


def _error(message: str, where: str, **parts: Any) -> Diagnostic:
    """The error of `where`, a part of the command line."""
    return Diagnostic(message, **{"where": f"command line: {where}", "order": (_ORDER, 0), **parts})


def _wrong_positionals(command: Command, positionals: Sequence[str]) -> Iterator[Diagnostic]:
    """The errors of arguments that are no options: too many, unknown or missing ones."""
    if positionals and command.reader is not None:
        message = f"{command.name} takes no runs"
        words = shlex.join(positionals)
        allowed = f"options; see  {command.call} --help"
        line = f"{PROGRAM} {command.reader} {words}"
        yield _error(message, words, value=words, allowed=allowed, fix=line)
        return
    for argument in positionals[command.most(positionals) :]:
        allowed = f"options; see  {command.call} --help"
        fix = (
            f"--set {shlex.quote(argument)}"
            if argument.partition("=")[0] in names("keys")
            else None
        )
        yield _error(
            f"unexpected argument '{argument}'", argument, value=argument, allowed=allowed, fix=fix
        )
    argument = "".join(positionals[:1])
    choices = ", ".join(command.choices)
    call = command.name
    if argument and command.choices and argument not in command.choices:
        parts = {"allowed": choices, "did_you_mean": nearest_match(argument, command.choices)}
        message = f"unknown {command.argument} {argument!r}"
        yield _error(message, f"{call} {argument}", value=argument, **parts)
    elif command.argument and command.requires_argument and not positionals:
        allowed = choices or command.allowed or f"{PROGRAM} {call} {command.argument}"
        yield _error(f"{call} requires {command.argument}", call, allowed=allowed)
    elif command.requires_operand(argument) and not positionals[1:]:
        call = f"{call} {argument or command.choices[0]}"
        form = command.operand
        yield _error(f"{call} requires {form}", call, allowed=f"{PROGRAM} {call} {form}")


def _unknown_option(command: Command, words: Sequence[str], position: int) -> Diagnostic:
    """The error of an unknown option; the second of its `words` is most likely its value.

    One of the program that the command passes options to belongs after `--`; a setting is its own
    option, or --set.
    """
    argument = words[0]
    (flag, is_joined, text) = words[0].partition("=")
    text = text if is_joined else "".join(words[1:])
    name = flag
    known = (*command.options, HELP)
    parts = {
        "order": (_ORDER, position),
        "allowed": f"{len(known)} options; see  {command.call} --help",
    }
    forms = {option.flag: f"{option.flag} " if option.metavar else option.flag for option in known}
    instead = command.instead.get(flag)
    if instead is not None:
        line = f"{instead} {shlex.quote(text) if text else 'N'}"
        return _error(
            f"unknown option '{flag}'",
            argument,
            **parts,
            value=flag,
            did_you_mean=instead,
            fix=line,
        )
    if command.passthrough is not None:
        from gearshift.slurm.sbatch import option_of

        if (theirs := option_of(argument)) is not None:
            name = f"--{theirs}"
            text = text if argument.startswith("--") else argument[2:] or text
            if name not in forms:
                parts["allowed"] = f"after  --  at the end: {command.call} [OPTIONS] -- {argument}"
                message = f"option '{flag}' belongs to {command.passthrough}, not to {command.name}"
                return _error(message, argument, **parts, value=argument)
    if "--set" in forms:  # a key, or its last part
        sets = {key: f"--set {key}=" for key in names("keys")}
        lasts = {f"--{key.rpartition('.')[2]}": form for key, form in sets.items()}
        forms = lasts | {f"--{key}": form for key, form in sets.items()} | forms
    form = forms.get(nearest_match(name, forms) or "", "")
    value = shlex.quote(text) if text else "VALUE" if form.endswith("=") else ""
    fix = (form + value if form.endswith((" ", "=")) else form).rstrip() or None
    meant = form.rstrip(" =") or None
    return _error(
        f"unknown option '{flag}'", argument, **parts, value=flag, did_you_mean=meant, fix=fix
    )
