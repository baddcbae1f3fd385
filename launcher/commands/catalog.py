"""The commands there are: what each one does, what it takes, and where it lives."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.cli.options import (
    BY_FLAG,
    COMPARE,
    JSON,
    OPTIONS,
    RESUME,
    SCHEMA,
    SHOWN,
    Option,
)
from launcher.submit.options import SUBMIT


@dataclass(frozen=True)
class Command:
    """One command; nothing is imported by naming it."""

    name: str
    sentence: str
    module: str
    """Has `main(request) -> int`, the exit code."""
    options: tuple[Option, ...]
    word: str | None = None
    """What it is given beside options, as help writes it."""
    words: tuple[str, ...] = ()
    """What that word may be, where that is a closed list."""
    allowed: str = ""
    """The same in words, where it is no closed list."""
    word_required: bool = False
    operand: str | None = None
    """A file or folder that it is given behind that word, as help writes it; it is required."""
    alone: tuple[str, ...] = ()
    """Those of `words` that are given none."""
    behind: str | None = None
    """Whose options may stand behind `--`; None: nobody's."""

    def takes_operand(self, word: str | None) -> bool:
        """Whether something has to stand behind `word`."""
        return self.operand is not None and word not in self.alone


COMMANDS = {
    command.name: command
    for command in (
        Command("run", "train; the default", "launcher.commands.run", OPTIONS),
        Command(
            "resume",
            "go on from a run folder, from one of its checkpoints, or from the newest (auto)",
            "launcher.commands.run",
            tuple(option for option in OPTIONS if option != RESUME),
            word="RUN",
            allowed="a run folder, one of its checkpoints, the number of a step, or auto",
            word_required=True,
        ),
        Command(
            "explain",
            "show each setting, where it comes from and what it replaced",
            "launcher.commands.explain",
            (*OPTIONS, SCHEMA),
            word="KEY",
        ),
        Command(
            "list",
            "list models, modes or engines",
            "launcher.commands.list",
            (JSON,),
            word="WHAT",
            words=("models", "modes", "engines"),
            word_required=True,
        ),
        Command(
            "verify",
            "replay the last stretch of a run in a folder of its own, and compare every bit",
            "launcher.commands.verify",
            (BY_FLAG["--engine"], BY_FLAG["--nproc"], JSON),
            word="RUN",
            allowed="a run folder, or one of its checkpoints",
            word_required=True,
        ),
        Command(
            "compare",
            "run modes or engines side by side, measure them, and hold modes to their promises",
            "launcher.commands.compare",
            COMPARE,
        ),
        Command(
            "submit",
            "check a run, queue it on a Slurm cluster, and follow it there",
            "launcher.commands.submit",
            SUBMIT,
            behind="sbatch",
        ),
        Command(
            "export",
            "write the model of a run for other programs",
            "launcher.commands.export",
            (
                Option(
                    "--format",
                    SHOWN,
                    "NAME",
                    sentence="hf: a folder that transformers loads; safetensors: the weights under "
                    "their own names, and what there is to know as JSON.",
                ),
                Option(
                    "--checkpoint",
                    SHOWN,
                    "WHICH",
                    sentence="best, last, or the number of a step. Default: best if there is one.",
                ),
                Option(
                    "--out",
                    SHOWN,
                    "DIR",
                    sentence="The folder to write. Default: export-NAME in the run folder.",
                    values="folders",
                ),
                JSON,
            ),
            word="RUN",
            word_required=True,
        ),
        Command(
            "track",
            "send to W&B what it lacks of a run that is over",
            "launcher.commands.track",
            (),
            word="RUN",
            allowed="a run folder",
            word_required=True,
        ),
        Command(
            "new-task",
            "write a file with a task of your own, which trains as it is, to start from",
            "launcher.commands.new_task",
            (
                Option(
                    "--out",
                    SHOWN,
                    "DIR",
                    sentence="The folder to write the file into. Default: the one you are in.",
                    values="folders",
                ),
                JSON,
            ),
            word="NAME",
            allowed="a name in letters, digits and _, such as my_images",
            word_required=True,
        ),
        Command(
            "data",
            "tell what is in data, and draw some of it (data check PATH); or fetch it (data fetch)",
            "launcher.commands.data",
            (
                BY_FLAG["--model"],
                BY_FLAG["--config"],
                BY_FLAG["--set"],
                Option(
                    "--out",
                    SHOWN,
                    "DIR",
                    sentence="The folder for what is fetched; of a check, for data.html and the "
                    "pictures. Default: downloads; data-check.",
                    values="folders",
                ),
                JSON,
            ),
            word="WHAT",
            words=("check", "fetch"),
            word_required=True,
            operand="PATH",
            alone=("fetch",),
        ),
        Command(
            "completion",
            "print a script that completes commands, options and names in your shell",
            "launcher.commands.completion",
            (),
            word="SHELL",
            words=("bash", "zsh", "fish"),
            word_required=True,
        ),
    )
}
DEFAULT = "run"
