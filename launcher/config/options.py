"""Commands and options, for parsing, help and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from engines.catalog import ENGINES
from launcher.base.diagnostics import PROGRAM
from launcher.config import presets
from launcher.config.provenance import ResetPart
from launcher.config.schema import AUTO, config_of, setting_infos
from models.base import SplitName
from models.catalog import FAMILIES, stages_of
from training.settings import TRACKERS

Values = Literal[
    "models", "modes", "engines", "stages", "keys", "parts", "trackers", "files", "folders", "paths"
]

PATH_VALUES = ("models", "files", "folders", "paths", None)
"""The kinds that may be paths; None: no kind is declared."""


@dataclass(frozen=True)
class Option:
    """One option. The help of an option that sets a setting is the setting's description."""

    flag: str
    group: str
    metavar: str | None = None
    """None: the option takes no value."""
    key: str | None = None
    """The setting that it sets."""
    sentence: str = ""
    """Help; empty: the description of the setting."""
    mode: str | None = None
    """The mode that it selects."""
    repeats: bool = False
    values: Values | None = None
    """The kind of values for completion."""


def option(
    form: str,
    sentence: str = "",
    key: str | None = None,
    *,
    repeats: bool = False,
    values: Values | None = None,
    group: str = "output",
) -> Option:
    """An option from its form in help: `--epochs N`."""
    flag, _, metavar = form.partition(" ")
    return Option(flag, group, metavar or None, key, sentence, repeats=repeats, values=values)


def in_group(name: str, *options: Option) -> Iterator[Option]:
    """The options under a heading of help."""
    return (replace(option, group=name) for option in options)


MODEL = "model, data and mode"
TRAINING = "training"
OUTPUT = "output"


def out_option(sentence: str) -> Option:
    """The option --out of a command, with its own help."""
    return option("--out DIR", sentence, values="folders")


JSON = option("--json", "Print JSON instead of text.")
HELP = option("--help", "Print this help and exit.")
VERSION = option("--version", "Print the versions of the libraries and exit.")
OPTIONS = (
    *in_group(
        MODEL,
        option(
            "--model FAMILY[:SIZE]",
            "Model family and size, see `list models`; or a custom task, "
            "package.module:Class[:SIZE], see `new-task`.",
            values="models",
        ),
        option(
            "--data PATH",
            "File or folder in a format of the family, or its built-in data; see "
            "`explain data.path` and `data check`.",
            "data.path",
            values="paths",
        ),
        option("--continuous-learning", key="continual.enabled"),
        option(
            "--max-hours N",
            "With --continuous-learning: stop after N hours and save a checkpoint.",
            "continual.max_hours",
        ),
        option("--download-data", key="download.fetch"),
        option("--mode MODE", key="mode", values="modes"),
        *(
            Option(f"--{mode}", MODEL, sentence=f"Short for --mode {mode}.", mode=mode)
            for mode in ("lite", "resource-efficient", "fast", "ultra-fast", "benchmark")
        ),
        option("--stage NAME", "Train this stage only, in mode staged; see `list models`.", values="stages"),
        option(
            "--from RUN",
            "Initialize the weights of the stage from a run, a staged run, a checkpoint, an "
            "export or a safetensors file.",
            values="paths",
        ),
    ),
    *in_group(
        TRAINING,
        option("--epochs N", key="train.epochs"),
        option("--max-steps N", key="train.max_steps"),
        option("--batch-size N", key="train.micro_batch"),
        option("--seq-len N", key="data.seq_len"),
        option("--lr X", key="optim.lr"),
        option("--seed N", key="train.seed"),
        option("--num-workers N", key="loader.workers"),
    ),
    *in_group(
        "hardware",
        option("--engine ENGINE", key="engine.name", values="engines"),
        option("--nproc N", key="engine.nproc"),
        option("--max-restarts N", key="engine.max_restarts"),
        option("--precision NAME", key="precision"),
        option("--force", "Start a run whose weights, gradients and optimizer state do not fit here."),
        option("--deterministic", key="train.deterministic"),
        option("--debug", key="train.debug"),
    ),
    *in_group(
        "all other settings",
        option(
            "--config FILE",
            "Read settings from a YAML or JSON file; a later file overrides an earlier one.",
            repeats=True,
            values="files",
        ),
        option(
            "--set KEY=VALUE",
            "Set one setting by its dotted key: optim.betas='[0.9, 0.99]'; see `explain`.",
            repeats=True,
            values="keys",
        ),
        option("--ds-config FILE", key="engine.ds_config", values="files"),
    ),
    *in_group(
        "resume",
        option(
            "--resume auto|DIR|STEP",
            "Resume the newest run of this model (auto), a run folder or checkpoint, or the newest "
            "run at a step.",
            values="folders",
        ),
        option(
            "--reset PART",
            "State to reinitialize instead of restoring: optimizer, schedule or data.",
            repeats=True,
            values="parts",
        ),
    ),
    out_option("Run folder. Default: runs/<model>-<mode>-<engine>-<time>."),
    option("--track NAME[:PROJECT]", key="track", repeats=True, values="trackers"),
    option("--profile N", key="log.profile"),
    option("--dry-run", "Show the resolved settings and the plan; start and write nothing."),
    JSON,
)
BY_FLAG = {option.flag: option for option in OPTIONS}
FORCE, RESUME = BY_FLAG["--force"], BY_FLAG["--resume"]
STAGE, FROM = BY_FLAG["--stage"], BY_FLAG["--from"]
GPUS = option("--gpus N", "GPUs of each node.")
GPU = option("--gpu NAME", "Kind of GPU, such as H200: its memory and speed.")
GPU_MEMORY = option("--gpu-memory SIZE", "Memory of a GPU, such as 24GiB.")
RAM = option("--ram SIZE", "Main memory of each node, such as 64GiB.")
NODES = option("--nodes M", "Nodes. Default: 1.")
PLANNED_MACHINE = (GPUS, GPU, GPU_MEMORY, RAM, NODES)
"""The options of `plan` for another machine."""
INPUT = "--input"
"""What `predict` reads."""
SPLITS: tuple[str, ...] = get_args(SplitName)
DEFAULT_SPLIT = "test"


def names(kind: str) -> list[str]:
    """All `models` (with their sizes), `modes`, ..., or setting `keys`; see options.Values."""
    if kind == "models":
        sized = [f"{family}:{size}" for family in FAMILIES for size in config_of(family).SIZES]
        return [*FAMILIES, *sized]
    if kind == "stages":
        stage_names = (stage.name for family in FAMILIES for stage in stages_of(family))
        return list(dict.fromkeys(stage_names))
    if kind == "keys":
        return sorted({key for family in FAMILIES for key in setting_infos(family)})
    closed = {"modes": presets.modes(), "engines": (*ENGINES, AUTO), "trackers": TRACKERS}
    return [*closed.get(kind, get_args(ResetPart))]


def is_switch(key: str) -> bool:
    """Whether the setting `key` of a family is true or false."""
    infos = (setting_infos(family).get(key) for family in FAMILIES)
    return any(info is not None and info.type == "true or false" for info in infos)


def choices(key: str) -> list[str]:
    """What the setting `key` may be, where that is a closed list."""
    family = next(family for family in FAMILIES if key in setting_infos(family))
    allowed = setting_infos(family)[key].allowed
    return list(allowed) if isinstance(allowed, tuple) else []


DEFAULT = "run"
"""The command of a command line that names none."""
_NUMBER = re.compile(r"-[0-9.]")
EMPTY = re.compile(r"(--[^=]*=)?")
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
    passthrough: str | None = None
    """The program that receives the options after `--`; None: `--` is not accepted."""

    @property
    def call(self) -> str:
        """The command as a user types it."""
        return PROGRAM if self.name == DEFAULT else f"{PROGRAM} {self.name}"

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
        argument, following = argv[index], "".join(argv[index + 1 : index + 2])
        is_option = argument.startswith("-") and argument != "-"
        is_known = not is_option or argument.partition("=")[0] in takes_value
        has_value = bool(_NUMBER.match(following))
        if index + 1 < len(argv) and takes_value.get(argument, not is_known):
            has_value = has_value or not following.startswith("-")
        words = [argument, following] if is_option and "=" not in argument and has_value else [argument]
        yield index + 1, words, is_known
        index += len(words)
