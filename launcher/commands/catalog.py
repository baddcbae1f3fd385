"""The commands: what each one does, its options, and the module that runs it."""

from __future__ import annotations

from typing import Any

from gearshift.launcher.config.command_line import (
    BY_FLAG,
    DEFAULT_SPLIT,
    INPUT,
    JSON,
    MODEL,
    OPTIONS,
    PLANNED_MACHINE,
    RESUME,
    RUN,
    RUN_ARGUMENTS,
    SPLITS,
    Command,
    Option,
    in_group,
    out_option,
)
from gearshift.launcher.submit.options import INSTEAD, SUBMIT
from gearshift.models.base import Sampling
from gearshift.training.settings import TRACKER_FORMS

RUNS = "runs"
SHELLS = ("bash", "zsh", "fish")
WORDS = "words"
"""What a script of these asks for: the words that complete the line in $COMP_LINE."""
BY = Option(
    "--by METRIC",
    "Sort runs by the best value of a metric, such as val_loss. Default: by their start.",
)
ONCE = Option("--once", "Print the state once, as plain lines, and exit.")
SCHEMA = Option("--schema", "Print the JSON schema of the settings and exit.")
_CHECKPOINT = Option(
    "--checkpoint WHICH",
    "best, last, or the number of a step. Default: best, if the run was evaluated, or else last.",
)
_MOVED = Option(
    "--set KEY=DIR",
    "New folder of what the run names: model.pretrained, whose weights must be the same, or "
    "model.folder, of a custom task.",
    repeats=True,
)
_RERUN = (BY_FLAG["--data"], BY_FLAG["--engine"], BY_FLAG["--nproc"], _MOVED, JSON)
_UNPLANNED = (
    "--dry-run",
    "--out",
    "--resume",
    "--reset",
    "--force",
    "--continuous-learning",
    "--track",
    "--profile",
    "--max-restarts",
)
"""Options of a run that change nothing of its plan."""
_PLAN = (
    *in_group("planned machine; default: this one", *PLANNED_MACHINE),
    *(o for o in OPTIONS if o.flag not in _UNPLANNED),
)
_BESIDE_KEYS = ("--model", "--config", "--set", "--dry-run")
_NOT_COMPARED = ("--mode", "--engine", "--epochs", "--continuous-learning")
"""It has its own form of the first three; continual learning has no end to compare."""
_COMPARE = (
    *in_group(
        "comparison",
        Option(
            "--modes A,B,C",
            "Modes to compare, or files of your own modes. Mode default is always included: "
            "promises are ratios to it.",
            values="modes",
        ),
        Option(
            "--engines A,B",
            "Engines to compare; each mode runs under each engine. Default: the engine of run.",
            values="engines",
        ),
        Option("--steps N", "Take N steps of each mode's schedule and extrapolate longer times."),
        Option("--epochs X", "Take X epochs of each mode's schedule and extrapolate longer times."),
        Option(
            "--until METRIC=X",
            "Train until an evaluation reaches the value, such as val_macro_f1=0.6, and compare "
            "the times. For metrics without a goal: 'METRIC>=X' or 'METRIC<=X'.",
        ),
        Option("--repeat R", "Repeat each run R times, interleaved. Default: 1."),
        Option(
            "--folds K|groups",
            "Run each candidate on K folds of the data, whose groups are never split; groups: "
            "each group validates once.",
        ),
        Option("--seeds N", "Run each candidate with N seeds, from train.seed on, on one split."),
    ),
    *(o for o in OPTIONS if o.flag in _BESIDE_KEYS or (o.key and o.flag not in _NOT_COMPARED)),
    out_option(
        "Folder for the runs and the files compare.*. Default: runs/compare-<model>-<time>."
    ),
    JSON,
)
_PREDICT = (
    *in_group(
        MODEL,
        Option(
            f"{INPUT} FILE|TEXT",
            "File or folder in a format of the family. For text: the prompt, or a file of "
            "prompts; without it, type prompts, or pipe one.",
            values="paths",
        ),
        _CHECKPOINT,
    ),
    *in_group(
        "generated text",
        Option("--max-tokens N", f"Stop after N tokens. Default: {Sampling.max_tokens}."),
        Option(
            "--temperature X",
            "Divisor of the logits; 0: always the likeliest token. Default: 0 after training on "
            "conversations, 0.8 on text.",
        ),
        Option(
            "--top-p X",
            "Sample from the likeliest tokens whose probabilities add up to X. Default: 1.",
        ),
        Option("--top-k N", "Sample from the N likeliest tokens. Default: all."),
        Option(
            "--seed N",
            f"Seed of sampling: the same seed gives the same text. Default: {Sampling.seed}.",
        ),
    ),
    out_option(
        "Folder for files of predictions, new or empty. Default: predictions in the run folder, "
        "where files of the same name are replaced; none for a prompt."
    ),
    JSON,
    _MOVED,
)


def _command(
    name: str, sentence: str, options: tuple[Option, ...], module: str | None = None, **more: Any
) -> Command:
    """The record of a command that its module of the same name runs; `more` are its fields."""
    if name in RUN_ARGUMENTS:
        more = {"argument": "RUN", "allowed": RUN_ARGUMENTS[name], **more}
    module = f"gearshift.launcher.commands.{module or name.replace('-', '_')}"
    return Command(name, sentence, module, options, **more)


_ALL = (
    RUN,
    _command(
        "resume",
        "resume a run from its folder, from a checkpoint, or the newest run (auto)",
        tuple(option for option in OPTIONS if option != RESUME),
        module="run",
        adds_errors=True,
    ),
    _command(
        "explain",
        "show each setting, its origin and the values it overrides",
        (*OPTIONS, SCHEMA),
        argument="KEY",
        requires_argument=False,
        adds_errors=True,
    ),
    _command(
        "list",
        "list models, modes, engines or recipes, all of them without WHAT; or the runs in DIR",
        (BY, JSON),
        argument="WHAT",
        requires_argument=False,
        choices=("models", "modes", "engines", "recipes", RUNS),
        operands={RUNS: "[DIR]"},
    ),
    _command(
        "plan",
        "predict the memory and traffic of a run, and what fits a machine",
        _PLAN,
        adds_errors=True,
    ),
    _command(
        "verify",
        "replay the last checkpoint interval of a run and compare it bit by bit; or find why two "
        "runs differ",
        (
            Option(
                "--against RUN",
                "Compare with another run, and name what differs first and why, by replays of "
                "both.",
                values="paths",
            ),
            *_RERUN,
        ),
    ),
    _command(
        "evaluate",
        "measure a checkpoint of a run on a split of its data",
        (
            *in_group(
                MODEL,
                Option(
                    "--split NAME",
                    f"The split to evaluate: {', '.join(SPLITS)}. Default: {DEFAULT_SPLIT}.",
                ),
                _CHECKPOINT,
            ),
            *_RERUN,
        ),
    ),
    _command(
        "watch",
        "show the progress of runs from another terminal; without RUN, of the newest in runs/",
        (ONCE, JSON),
        requires_argument=False,
        repeats_argument=True,
    ),
    _command(
        "compare",
        "run modes or engines, compare their measurements, and check the modes' promises",
        _COMPARE,
        reader="report",
        adds_errors=True,
    ),
    _command(
        "submit",
        "check a run and submit it to Slurm",
        SUBMIT,
        instead=INSTEAD,
        passthrough="sbatch",
        adds_errors=True,
    ),
    _command(
        "export",
        "export the model of a run for other programs",
        (
            Option(
                "--format NAME",
                "hf: a folder that transformers loads; safetensors: the weights by parameter "
                "name, and a JSON file that describes them; adapter: LoRA adapters for peft; onnx: "
                "a graph for ONNX, of abr and event_seg; dcp: a checkpoint of torch.distributed.",
            ),
            _CHECKPOINT,
            _MOVED,
            out_option("Folder to write. Default: export-NAME in the run folder."),
            JSON,
        ),
    ),
    _command(
        "predict",
        "use the model of a run: text after a prompt, or predictions for files",
        _PREDICT,
    ),
    _command(
        "report",
        "write the report of one run, or of several runs side by side",
        (
            Option(
                "--out FILE",
                "File to write. Default: report.html in the run folder; for several runs, in the "
                "current folder.",
                values="files",
            ),
            JSON,
        ),
        repeats_argument=True,
    ),
    _command(
        "track",
        "send the trackers of a finished run what they lack",
        (
            Option(
                "--to TRACKER",
                f"{TRACKER_FORMS}. Default: the trackers of the run, else wandb.",
            ),
        ),
    ),
    _command(
        "new-task",
        "write a template of a custom task, ready to train",
        (out_option("Folder for the file. Default: the current folder."), JSON),
        argument="NAME",
        allowed="a name of letters, digits and _, such as my_images",
    ),
    _command(
        "data",
        "check data and plot samples (data check PATH), download it (data fetch), or download a "
        "model of the Hugging Face hub (data fetch hf:ID)",
        (
            BY_FLAG["--model"],
            BY_FLAG["--config"],
            BY_FLAG["--set"],
            out_option(
                "Folder for downloads, or for data.html. Default: downloads, or data-check."
            ),
            JSON,
        ),
        argument="WHAT",
        choices=("check", "fetch"),
        operands={"check": "PATH", "fetch": "[hf:ID]"},
    ),
    _command("doctor", "check what this machine can run, with a fix for each problem", (JSON,)),
    Command(
        "completion",
        "print a shell script that completes commands, options and names",
        "gearshift.launcher.cli.completion",
        (),
        argument="SHELL",
        choices=(*SHELLS, WORDS),
    ),
)
COMMANDS = {command.name: command for command in _ALL}
ALIASES = {"train": RUN.name}
"""Other names of commands."""
