"""Command-line options and the names that complete them: one table for parsing, help and errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from engines.catalog import ENGINES
from launcher.config import presets
from launcher.config.provenance import ResetPart
from launcher.config.schema import AUTO, PRETRAINED, config_of, setting_infos
from models.base import Sampling, SplitName
from models.catalog import FAMILIES, stages_of
from training.settings import TRACKERS

Values = Literal[
    "models", "modes", "engines", "stages", "keys", "parts", "trackers", "files", "folders", "paths"
]


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
    """Help of an option without a setting."""
    mode: str | None = None
    """The mode that it selects."""
    repeats: bool = False
    values: Values | None = None
    """The kind of values for completion."""


MODEL = "model, data and mode"
TRAINING = "training"
HARDWARE = "hardware"
SETTINGS = "all other settings"
RESUMING = "resume"
OUTPUT = "output"


def out_option(sentence: str) -> Option:
    """The option --out of a command, with its own help."""
    return Option("--out", OUTPUT, "DIR", sentence=sentence, values="folders")


OPTIONS = (
    Option(
        "--model",
        MODEL,
        "FAMILY[:SIZE]",
        sentence="Model family and size, see `list models`; or a custom task, "
        "package.module:Class[:SIZE], see `new-task`.",
        values="models",
    ),
    Option(
        "--data",
        MODEL,
        "PATH",
        "data.path",
        sentence="File or folder in a format of the family, or its built-in data; see "
        "`explain data.path` and `data check`.",
        values="paths",
    ),
    Option("--continuous-learning", MODEL, key="continual.enabled"),
    Option(
        "--max-hours",
        MODEL,
        "N",
        "continual.max_hours",
        sentence="With --continuous-learning: stop after N hours and save a checkpoint.",
    ),
    Option("--download-data", MODEL, key="download.fetch"),
    Option("--mode", MODEL, "MODE", "mode", values="modes"),
    *(
        Option(f"--{mode}", MODEL, sentence=f"Short for --mode {mode}.", mode=mode)
        for mode in ("lite", "resource-efficient", "fast", "ultra-fast", "benchmark")
    ),
    Option(
        "--stage",
        MODEL,
        "NAME",
        sentence="Train this stage only, in mode staged; see `list models`.",
        values="stages",
    ),
    Option(
        "--from",
        MODEL,
        "RUN",
        sentence="Initialize the weights of the stage from a run, a staged run, a checkpoint, an "
        "export or a safetensors file.",
        values="paths",
    ),
    Option("--epochs", TRAINING, "N", "train.epochs"),
    Option("--max-steps", TRAINING, "N", "train.max_steps"),
    Option("--batch-size", TRAINING, "N", "train.micro_batch"),
    Option("--seq-len", TRAINING, "N", "data.seq_len"),
    Option("--lr", TRAINING, "X", "optim.lr"),
    Option("--seed", TRAINING, "N", "train.seed"),
    Option("--num-workers", TRAINING, "N", "loader.workers"),
    Option("--engine", HARDWARE, "ENGINE", "engine.name", values="engines"),
    Option("--nproc", HARDWARE, "N", "engine.nproc"),
    Option("--max-restarts", HARDWARE, "N", "engine.max_restarts"),
    Option("--precision", HARDWARE, "NAME", "precision"),
    Option(
        "--force",
        HARDWARE,
        sentence="Start a run whose weights, gradients and optimizer state do not fit here.",
    ),
    Option("--deterministic", HARDWARE, key="train.deterministic"),
    Option("--debug", HARDWARE, key="train.debug"),
    Option(
        "--config",
        SETTINGS,
        "FILE",
        sentence="Read settings from a YAML or JSON file; a later file overrides an earlier one.",
        repeats=True,
        values="files",
    ),
    Option(
        "--set",
        SETTINGS,
        "KEY=VALUE",
        sentence="Set one setting by its dotted key: optim.betas='[0.9, 0.99]'; see `explain`.",
        repeats=True,
        values="keys",
    ),
    Option("--ds-config", SETTINGS, "FILE", "engine.ds_config", values="files"),
    Option(
        "--resume",
        RESUMING,
        "auto|DIR|STEP",
        sentence="Resume the newest run of this model (auto), a run folder or checkpoint, or the "
        "newest run at a step.",
        values="folders",
    ),
    Option(
        "--reset",
        RESUMING,
        "PART",
        sentence="State to reinitialize instead of restoring: optimizer, schedule or data.",
        repeats=True,
        values="parts",
    ),
    out_option("Run folder. Default: runs/<model>-<mode>-<engine>-<time>."),
    Option("--track", OUTPUT, "NAME[:PROJECT]", "track", repeats=True, values="trackers"),
    Option("--profile", OUTPUT, "N", "log.profile"),
    Option(
        "--dry-run",
        OUTPUT,
        sentence="Show the resolved settings and the plan; start and write nothing.",
    ),
    Option("--json", OUTPUT, sentence="Print JSON instead of text."),
)

BY_FLAG = {option.flag: option for option in OPTIONS}
FORCE = BY_FLAG["--force"]
JSON = BY_FLAG["--json"]
RESUME = BY_FLAG["--resume"]
STAGE = BY_FLAG["--stage"]
FROM = BY_FLAG["--from"]
# `compare` has its own form of the first three; continual learning has no end to compare.
_NOT_COMPARED = ("--mode", "--engine", "--epochs", "--continuous-learning", "--max-hours")
_SHARED = ("--model", "--config", "--set", "--dry-run")
COMPARISON = "comparison"
COMPARE = (
    Option(
        "--modes",
        COMPARISON,
        "A,B,C",
        sentence="Modes to compare, or files of your own modes. Mode default is always included: "
        "promises are ratios to it.",
        values="modes",
    ),
    Option(
        "--engines",
        COMPARISON,
        "A,B",
        sentence="Engines to compare; each mode runs under each engine. Default: the "
        "engine of run.",
        values="engines",
    ),
    Option(
        "--steps",
        COMPARISON,
        "N",
        sentence="Take N steps of each mode's schedule and extrapolate longer times.",
    ),
    Option(
        "--epochs",
        COMPARISON,
        "X",
        sentence="Take X epochs of each mode's schedule and extrapolate longer times.",
    ),
    Option(
        "--until",
        COMPARISON,
        "METRIC=X",
        sentence="Train until an evaluation reaches the value, such as val_macro_f1=0.6, "
        "and compare "
        "the times. For metrics without a goal: 'METRIC>=X' or 'METRIC<=X'.",
    ),
    Option(
        "--repeat",
        COMPARISON,
        "R",
        sentence="Repeat each run R times, interleaved. Default: 1.",
    ),
    *(o for o in OPTIONS if o.flag in _SHARED or (o.key and o.flag not in _NOT_COMPARED)),
    out_option(
        "Folder for the runs, compare.json and compare.html. Default: runs/compare-<model>-<time>."
    ),
    JSON,
)
PLANNED = "planned machine; default: this one"
GPUS = Option("--gpus", PLANNED, "N", sentence="GPUs of each node.")
GPU = Option("--gpu", PLANNED, "NAME", sentence="Kind of GPU, such as H200: its memory and speed.")
GPU_MEMORY = Option("--gpu-memory", PLANNED, "SIZE", sentence="Memory of a GPU, such as 24GiB.")
RAM = Option("--ram", PLANNED, "SIZE", sentence="Main memory of each node, such as 64GiB.")
NODES = Option("--nodes", PLANNED, "M", sentence="Nodes. Default: 1.")
MEASURE = Option(
    "--measure",
    OUTPUT,
    sentence="Take three steps of the run on this machine, in a temporary folder, to predict its "
    "time.",
)
_NOT_PLANNED = ("--dry-run", "--out", "--resume", "--reset", "--force")
PLAN = (
    *(GPUS, GPU, GPU_MEMORY, RAM, NODES, MEASURE),
    *(option for option in OPTIONS if option.flag not in _NOT_PLANNED),
)
CHECKPOINT = Option(
    "--checkpoint",
    OUTPUT,
    "WHICH",
    sentence="best, last, or the number of a step. Default: best, if the run was evaluated, or "
    "else last.",
)
SPLITS: tuple[str, ...] = get_args(SplitName)
DEFAULT_SPLIT = "test"
SPLIT = Option(
    "--split",
    MODEL,
    "NAME",
    sentence=f"The split to evaluate: {', '.join(SPLITS)}. Default: {DEFAULT_SPLIT}.",
)
MOVED_FORM = f"--set {PRETRAINED}=DIR"
MOVED = Option(
    "--set",
    OUTPUT,
    f"{PRETRAINED}=DIR",
    sentence="New folder of the pretrained model of the run, if it has moved; its weights must be "
    "the same.",
    repeats=True,
)
INPUT = "--input"
"""What `predict` reads."""
GENERATED = "generated text"
PREDICT = (
    Option(
        INPUT,
        MODEL,
        "FILE|TEXT",
        sentence="File or folder in a format of the family. For text: the prompt, or a file of "
        "prompts; without it, type prompts, or pipe one.",
        values="paths",
    ),
    replace(CHECKPOINT, group=MODEL),
    Option(
        "--max-tokens",
        GENERATED,
        "N",
        sentence=f"Stop after N tokens. Default: {Sampling.max_tokens}.",
    ),
    Option(
        "--temperature",
        GENERATED,
        "X",
        sentence="Divisor of the logits; 0: always the likeliest token. Default: 0 after training "
        "on conversations, 0.8 on text.",
    ),
    Option(
        "--top-p",
        GENERATED,
        "X",
        sentence="Sample from the likeliest tokens whose probabilities add up to X. Default: 1.",
    ),
    Option(
        "--top-k",
        GENERATED,
        "N",
        sentence="Sample from the N likeliest tokens. Default: all.",
    ),
    Option(
        "--seed",
        GENERATED,
        "N",
        sentence=f"Seed of sampling: the same seed gives the same text. Default: {Sampling.seed}.",
    ),
    out_option(
        "Folder for files of predictions, new or empty. Default: predictions in the run folder, "
        "where files of the same name are replaced; none for a prompt."
    ),
    JSON,
)
ONCE = Option("--once", OUTPUT, sentence="Print the state once, as plain lines, and exit.")
SCHEMA = Option("--schema", OUTPUT, sentence="Print the JSON schema of the settings and exit.")
VERSION = Option("--version", OUTPUT, sentence="Print the versions of the libraries and exit.")
HELP = Option("--help", OUTPUT, sentence="Print this help and exit.")


def names(kind: str) -> list[str]:
    """All `models` (with their sizes), `modes`, ..., or setting `keys`; see options.Values."""
    if kind == "models":
        sized = [f"{family}:{size}" for family in FAMILIES for size in config_of(family).SIZES]
        return [*FAMILIES, *sized]
    if kind == "modes":
        return list(presets.modes())
    if kind == "engines":
        return [*ENGINES, AUTO]
    if kind == "stages":
        stage_names = (stage.name for family in FAMILIES for stage in stages_of(family))
        return list(dict.fromkeys(stage_names))
    if kind == "trackers":
        return list(TRACKERS)
    if kind == "parts":
        return list(get_args(ResetPart))
    return sorted({key for family in FAMILIES for key in setting_infos(family)})


def is_switch(key: str) -> bool:
    """Whether the setting `key` of a family is true or false."""
    infos = (setting_infos(family).get(key) for family in FAMILIES)
    return any(info is not None and info.type == "true or false" for info in infos)


def choices(key: str) -> list[str]:
    """What the setting `key` may be, where that is a closed list."""
    family = next(family for family in FAMILIES if key in setting_infos(family))
    allowed = setting_infos(family)[key].allowed
    return list(allowed) if isinstance(allowed, tuple) else []
