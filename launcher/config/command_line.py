"""The command line: commands and options, its parsed arguments, and their errors."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from gearshift.launcher.base.diagnostics import PROGRAM, Diagnostic
from gearshift.launcher.config.provenance import CliArgs
from gearshift.models.base import SplitName
from gearshift.training.settings import TRACKERS

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
            "Model family and size, see `list models`; the folder, OWNER/NAME or "
            "hf:OWNER/NAME@REVISION of a Hugging Face model; a run folder; or a custom task, "
            "package.module:Class[:SIZE], see `new-task`.",
            values="models",
        ),
        Option(
            "--data PATH",
            "File or folder in a format of the family, its built-in data, or a data set of the "
            "Hugging Face hub, hf:OWNER/NAME; see `explain data.path` and `data check`. Several: "
            "--data A --data B.",
            "data.path",
            repeats=True,
            values="paths",
        ),
        Option("--continuous-learning", key="continual.enabled"),
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
        Option("--for TIME", key="train.time"),
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
            "Read settings from a YAML or JSON file, or a recipe of `list recipes`; a later file "
            "overrides an earlier one.",
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
    Option(
        "--track NAME[:PROJECT]",
        f"Experiment trackers: {', '.join(TRACKERS)}.",
        "track",
        repeats=True,
        values="trackers",
    ),
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
_ORDER = 999
"""Sorts these errors after those of files and before those of single settings."""


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
    """The `choices` that need no operand, and the one they take, as help shows it; empty: none."""
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

    @property
    def most_positionals(self) -> int:
        """How many positional arguments it takes."""
        if self.repeats_argument:
            return sys.maxsize
        return bool(self.argument) + bool(self.operand)


def split_options(command: Command, argv: Sequence[str]) -> Iterator[tuple[int, list[str], bool]]:
    """Each argument with its position, and whether the command takes it.

    With an option comes its value, also a negative number; with an unknown one what is most likely
    its value.
    """
    takes_value = {option.flag: option.metavar is not None for option in command.options}
    index = 0
    while index < len(argv):
        argument = argv[index]
        is_option = argument.startswith("-") and argument != "-"
        is_known = not is_option or argument.partition("=")[0] in takes_value
        words = [argument]
        if is_option and "=" not in argument and index + 1 < len(argv):
            following = argv[index + 1]
            is_value = takes_value.get(argument, not is_known) and not following.startswith("-")
            if is_value or _NUMBER.match(following):
                words.append(following)
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
    """The other RUNs of report and watch; the operand of data and list."""
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
        """The PATH of data check, the hf:ID of data fetch, the DIR of list runs; empty: none."""
        return next(iter(self.more), "")


def command_line_error(message: str, where: str, position: int = 0, **parts: Any) -> Diagnostic:
    """The error of `where`, a part of the command line; `parts` are further fields."""
    return Diagnostic(message, where=f"command line: {where}", order=(_ORDER, position), **parts)
