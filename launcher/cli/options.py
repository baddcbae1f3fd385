"""The options that a person types: one table for parsing, help, completion and messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Values = Literal[
    "models", "modes", "engines", "stages", "keys", "parts", "trackers", "files", "folders", "paths"
]


@dataclass(frozen=True)
class Option:
    """One option. What it says of a setting is told where the setting is declared."""

    flag: str
    group: str
    metavar: str | None = None
    """None: it takes no value."""
    key: str | None = None
    """The setting that it is a short name of."""
    sentence: str = ""
    """For what is no setting, or says more than the setting's own sentence."""
    mode: str | None = None
    """The mode that it is a short name of."""
    repeats: bool = False
    values: Values | None = None
    """Where completion finds its values."""


WHAT = "what is trained, and what it may cost"
HOW_MUCH = "how much, in what portions"
WHERE = "where it runs"
SETTINGS = "all other settings"
GOES_ON = "a run that goes on"
SHOWN = "what is kept and shown"

OPTIONS = (
    Option(
        "--model",
        WHAT,
        "FAMILY[:SIZE]",
        sentence="The model family and its size, see `list models`; or a task of your own, "
        "package.module:Class[:SIZE], see `new-task`.",
        values="models",
    ),
    Option("--data", WHAT, "PATH", "data.path", values="paths"),
    Option("--continuous-learning", WHAT, key="continual.enabled"),
    Option("--max-hours", WHAT, "N", "continual.max_hours"),
    Option("--download-data", WHAT, key="download.fetch"),
    Option("--mode", WHAT, "MODE", "mode", values="modes"),
    *(
        Option(f"--{mode}", WHAT, sentence=f"The same as --mode {mode}.", mode=mode)
        for mode in ("lite", "resource-efficient", "fast", "ultra-fast", "benchmark")
    ),
    Option(
        "--stage",
        WHAT,
        "NAME",
        sentence="This stage alone, in mode staged; see `list models`.",
        values="stages",
    ),
    Option(
        "--from",
        WHAT,
        "RUN",
        sentence="Where its first weights come from: a run of an earlier stage or of several, a "
        "checkpoint, an export or a safetensors file.",
        values="paths",
    ),
    Option("--epochs", HOW_MUCH, "N", "train.epochs"),
    Option("--max-steps", HOW_MUCH, "N", "train.max_steps"),
    Option("--batch-size", HOW_MUCH, "N", "train.micro_batch"),
    Option("--seq-len", HOW_MUCH, "N", "data.seq_len"),
    Option("--lr", HOW_MUCH, "X", "optim.lr"),
    Option("--seed", HOW_MUCH, "N", "train.seed"),
    Option("--num-workers", HOW_MUCH, "N", "loader.workers"),
    Option("--engine", WHERE, "ENGINE", "engine.name", values="engines"),
    Option("--nproc", WHERE, "N", "engine.nproc"),
    Option("--max-restarts", WHERE, "N", "engine.max_restarts"),
    Option("--precision", WHERE, "NAME", "precision"),
    Option("--deterministic", WHERE, key="train.deterministic"),
    Option("--debug", WHERE, key="train.debug"),
    Option(
        "--config",
        SETTINGS,
        "FILE",
        sentence="Settings of your own, YAML or JSON; of several, later files win.",
        repeats=True,
        values="files",
    ),
    Option(
        "--set",
        SETTINGS,
        "KEY=VALUE",
        sentence="One setting by its dotted key, such as optim.betas='[0.9, 0.99]'; see `explain`.",
        repeats=True,
        values="keys",
    ),
    Option("--ds-config", SETTINGS, "FILE", "engine.ds_config", values="files"),
    Option(
        "--resume",
        GOES_ON,
        "auto|DIR|STEP",
        sentence="Go on from the newest run of this kind, from a run folder or checkpoint, or from "
        "a step of the newest run.",
        values="folders",
    ),
    Option(
        "--reset",
        GOES_ON,
        "PART",
        sentence="What begins anew all the same, so that its settings may change: optimizer, "
        "schedule or data.",
        repeats=True,
        values="parts",
    ),
    Option(
        "--out",
        SHOWN,
        "DIR",
        sentence="The run folder. Default: runs/<model>-<mode>-<engine>-<time>.",
        values="folders",
    ),
    Option("--track", SHOWN, "NAME[:PROJECT]", "track", repeats=True, values="trackers"),
    Option(
        "--dry-run",
        SHOWN,
        sentence="Show the settings, the numbers and what would be started; write nothing.",
    ),
    Option("--json", SHOWN, sentence="Print one JSON value for machines in place of text."),
)
BY_FLAG = {option.flag: option for option in OPTIONS}
JSON = BY_FLAG["--json"]
RESUME = BY_FLAG["--resume"]
STAGE = BY_FLAG["--stage"]
FROM = BY_FLAG["--from"]
# A comparison says the first three otherwise, and what learns on has no end to be compared.
_NOT_COMPARED = ("--mode", "--engine", "--epochs", "--continuous-learning", "--max-hours")
_SHARED = ("--model", "--config", "--set", "--dry-run")
COMPARED = "what is compared, and how far each run goes"
COMPARE = (
    Option(
        "--modes",
        COMPARED,
        "A,B,C",
        sentence="Modes to compare; default is always one of them, for promises are ratios to it.",
        values="modes",
    ),
    Option(
        "--engines",
        COMPARED,
        "A,B",
        sentence="Engines to compare: each mode runs under each of them. Default: the one of run.",
        values="engines",
    ),
    Option(
        "--steps",
        COMPARED,
        "N",
        sentence="Take N steps of each mode's own schedule, and work out longer times from them.",
    ),
    Option(
        "--epochs",
        COMPARED,
        "X",
        sentence="The same with X passes over the data that the mode trains on.",
    ),
    Option(
        "--until",
        COMPARED,
        "METRIC=X",
        sentence="Train until an evaluation reaches it, such as val_macro_f1=0.6, and compare the "
        "time to it; for other metrics than the family's goal METRIC>=X or METRIC<=X, in quotes.",
    ),
    Option(
        "--repeat",
        COMPARED,
        "R",
        sentence="Run each of them R times, in turns. Default: 1.",
    ),
    *(one for one in OPTIONS if one.flag in _SHARED or (one.key and one.flag not in _NOT_COMPARED)),
    Option(
        "--out",
        SHOWN,
        "DIR",
        sentence="The folder for the runs, compare.json and compare.html. Default: "
        "runs/compare-<model>-<time>.",
        values="folders",
    ),
    JSON,
)
SCHEMA = Option("--schema", SHOWN, sentence="Print the JSON schema of the settings and end.")
HELP = Option("--help", SHOWN, sentence="Print this text and end; -h does the same.")
