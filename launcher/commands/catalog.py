"""The commands: what each one does, its options, and the module that runs it."""

from __future__ import annotations

from dataclasses import replace

from launcher.config.command import Command
from launcher.config.command_line import RUN
from launcher.config.options import (
    BY_FLAG,
    CHECKPOINT,
    COMPARE,
    JSON,
    MODEL,
    MOVED,
    ONCE,
    OPTIONS,
    OUTPUT,
    PLAN,
    PREDICT,
    RESUME,
    SCHEMA,
    SPLIT,
    Option,
    out_option,
)
from launcher.submit.options import SUBMIT

COMMANDS = {
    command.name: command
    for command in (
        RUN,
        Command(
            "resume",
            "resume a run from its folder, from a checkpoint, or the newest run (auto)",
            "launcher.commands.run",
            tuple(option for option in OPTIONS if option != RESUME),
            argument="RUN",
            allowed="a run folder, a checkpoint, the number of a step, or auto",
        ),
        Command(
            "explain",
            "show each setting, its origin and the values it overrides",
            "launcher.commands.explain",
            (*OPTIONS, SCHEMA),
            argument="KEY",
            requires_argument=False,
        ),
        Command(
            "list",
            "list models, modes or engines; all of them without WHAT",
            "launcher.commands.list",
            (JSON,),
            argument="WHAT",
            requires_argument=False,
            choices=("models", "modes", "engines"),
        ),
        Command(
            "plan",
            "predict the memory and traffic of a run, and what fits a machine",
            "launcher.commands.plan",
            PLAN,
        ),
        Command(
            "verify",
            "replay the last checkpoint interval of a run and compare it bit by bit",
            "launcher.commands.verify",
            (BY_FLAG["--data"], BY_FLAG["--engine"], BY_FLAG["--nproc"], MOVED, JSON),
            argument="RUN",
            allowed="a run folder or a checkpoint",
        ),
        Command(
            "evaluate",
            "measure a checkpoint of a run on a split of its data",
            "launcher.commands.evaluate",
            (
                SPLIT,
                replace(CHECKPOINT, group=MODEL),
                BY_FLAG["--data"],
                BY_FLAG["--engine"],
                BY_FLAG["--nproc"],
                MOVED,
                JSON,
            ),
            argument="RUN",
            allowed="a run folder or a checkpoint",
        ),
        Command(
            "watch",
            "show the progress of runs from another terminal; without RUN, of the newest in runs/",
            "launcher.commands.watch",
            (ONCE, JSON),
            argument="RUN",
            allowed="run folders, or a folder of runs",
            requires_argument=False,
            repeats_argument=True,
        ),
        Command(
            "compare",
            "run modes or engines, compare their measurements, and check the modes' promises",
            "launcher.commands.compare",
            COMPARE,
        ),
        Command(
            "submit",
            "check a run and submit it to Slurm",
            "launcher.commands.submit",
            SUBMIT,
            passthrough="sbatch",
        ),
        Command(
            "export",
            "export the model of a run for other programs",
            "launcher.commands.export",
            (
                Option(
                    "--format",
                    OUTPUT,
                    "NAME",
                    sentence="hf: a folder that transformers loads; safetensors: the weights by "
                    "parameter name, and a JSON file that describes them.",
                ),
                CHECKPOINT,
                MOVED,
                out_option("Folder to write. Default: export-NAME in the run folder."),
                JSON,
            ),
            argument="RUN",
        ),
        Command(
            "predict",
            "use the model of a run: text after a prompt, or predictions for files",
            "launcher.commands.predict",
            (*PREDICT, MOVED),
            argument="RUN",
            allowed="a run folder, a checkpoint, or an export as safetensors",
        ),
        Command(
            "report",
            "write the report of one run, or of several runs side by side",
            "launcher.commands.report",
            (
                Option(
                    "--out",
                    OUTPUT,
                    "FILE",
                    sentence="File to write. Default: report.html in the run folder; for several "
                    "runs, in the current folder.",
                    values="files",
                ),
                JSON,
            ),
            argument="RUN",
            allowed="run folders",
            repeats_argument=True,
        ),
        Command(
            "track",
            "upload the missing metrics of a finished run to W&B",
            "launcher.commands.track",
            (),
            argument="RUN",
            allowed="a run folder",
        ),
        Command(
            "new-task",
            "write a template of a custom task, ready to train",
            "launcher.commands.new_task",
            (out_option("Folder for the file. Default: the current folder."), JSON),
            argument="NAME",
            allowed="a name of letters, digits and _, such as my_images",
        ),
        Command(
            "convert",
            "write a settings file from one of an original code base",
            "launcher.commands.convert",
            (
                replace(
                    BY_FLAG["--model"],
                    metavar="FAMILY",
                    sentence="The family of the original. Default: found by the keys.",
                ),
                Option(
                    "--out",
                    OUTPUT,
                    "FILE",
                    sentence="File to write. Default: NAME-gearshift.yaml in the current folder.",
                    values="files",
                ),
                JSON,
            ),
            argument="FILE",
            allowed="a settings file of an original, such as config/lite.yaml; see originals.md",
        ),
        Command(
            "data",
            "check data and plot samples (data check PATH), or download it (data fetch)",
            "launcher.commands.data",
            (
                BY_FLAG["--model"],
                BY_FLAG["--config"],
                BY_FLAG["--set"],
                out_option(
                    "Folder for downloads, or for data.html and the plots. Default: downloads, or "
                    "data-check."
                ),
                JSON,
            ),
            argument="WHAT",
            choices=("check", "fetch"),
            operand="PATH",
            without_operand=("fetch",),
        ),
        Command(
            "doctor",
            "check what this machine can run, with a fix for each problem",
            "launcher.commands.doctor",
            (JSON,),
        ),
        Command(
            "completion",
            "print a shell script that completes commands, options and names",
            "launcher.cli.completion",
            (),
            argument="SHELL",
            choices=("bash", "zsh", "fish"),
        ),
    )
}

ALIASES = {"train": RUN.name}
"""Other names of commands."""
