"""The options that a person types: one table for parsing, help, completion and messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Values = Literal["models", "modes", "engines", "keys", "parts", "files", "folders", "paths"]


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
    Option("--mode", WHAT, "MODE", "mode", values="modes"),
    *(
        Option(f"--{mode}", WHAT, sentence=f"The same as --mode {mode}.", mode=mode)
        for mode in ("lite", "resource-efficient", "fast", "ultra-fast", "benchmark")
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
SCHEMA = Option("--schema", SHOWN, sentence="Print the JSON schema of the settings and end.")
HELP = Option("--help", SHOWN, sentence="Print this text and end; -h does the same.")
