"""Command lines: commands, options, exit codes, errors, and help."""

import re
from importlib.metadata import version
from pathlib import Path

from gearshift.launcher.__main__ import read
from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import render
from gearshift.launcher.config.command_line import OPTIONS
from gearshift.launcher.config.commands import COMMANDS
from gearshift.launcher.config.input_errors import names
from gearshift.launcher.config.schema import setting_infos
from gearshift.launcher.run_folder import run_folder


def args(line):
    command_line = read(line.split())
    assert render(command_line.diagnostics) == ""
    return command_line.args


def diagnostics(line):
    return render(read(line.split()).diagnostics)


def test_run_is_the_default_command():
    assert read([]).command.name == "run"
    assert read(["--lite"]).command == read(["run", "--lite"]).command
    assert vars(read(["--lite"]).args) == vars(read(["run", "--lite"]).args)
    command_line = read(["--dry-run", "--json", "--out", "here"])
    assert command_line.values.keys() == {"--dry-run", "--json", "--out"}
    assert (command_line.out, command_line.args.options) == (Path("here"), {})


def test_every_setting_and_mode_option_reaches_its_setting():
    for option in OPTIONS:
        if option.mode:
            found = args(option.flag)
            assert (found.mode, found.mode_option) == (option.mode, option.flag)
        elif option.key is not None and option.key not in ("mode", "engine.name"):
            line = f"{option.flag} 3" if option.metavar else option.flag
            value = "3" if option.metavar else "true"
            assert args(line).options == {option.key: (option.flag, value)}


def test_options_and_values_in_any_form():
    assert args("--lr 1 --lr 2").options["optim.lr"] == ("--lr", "2")  # the later one wins
    assert args("--mode fast --mode lite").mode == "lite"
    assert args("--fast --mode fast").mode == "fast"
    assert args("--lr=1e-3").options == args("--lr 1e-3").options
    assert vars(args("--lr 1 --fast --set a=2")) == vars(args("--fast --set a=2 --lr 1"))
    assert args("--lr -1e-3").options["optim.lr"] == ("--lr", "-1e-3")
    found = args("--config a.yaml --set x=1 --config b.json --set y=2")
    assert found.configs == [Path("a.yaml"), Path("b.json")]
    assert found.sets == ["x=1", "y=2"]


def test_a_command_has_some_options_of_run_and_some_of_its_own():
    line = read(["explain", "--fast", "optim.lr", "--nproc", "2", "--out", "here"])
    assert (line.command.name, line.argument, line.args.mode) == ("explain", "optim.lr", "fast")

    line = read(["verify", "mine", "--engine", "ddp", "--nproc", "2", "--json"])
    assert line.diagnostics == []
    assert (line.argument, line.args.engine, line.values.keys()) == (
        "mine",
        "ddp",
        {"--engine", "--nproc", "--json"},
    )
    assert line.args.options == {"engine.nproc": ("--nproc", "2")}

    line = read(["export", "mine", "--format", "hf", "--checkpoint=best", "--out", "there"])
    assert line.diagnostics == []
    assert (line.values["--format"], line.values["--checkpoint"]) == ("hf", "best")
    assert line.out == Path("there")

    line = read(["report", "one", "--out", "both.html", "two"])
    assert line.diagnostics == []
    assert (line.argument, line.more) == ("one", ["two"])
    assert "report requires RUN" in diagnostics("report")
    (error,) = read(["completion"]).diagnostics
    assert (error.where, error.allowed) == ("command line: completion", "bash, zsh, fish")


def test_unknown_options_are_errors_with_the_nearest_one_and_the_typed_value():
    found = re.findall("error: unknown option '(.*)'", diagnostics("--aaa --lite --bbb 1 --ccc"))
    assert found == ["--aaa", "--bbb", "--ccc"]  # all, in order
    for typed, fix in (
        ("--epohcs 3", "--epochs 3"),
        ("--optim.lr 3", "--set optim.lr=3"),
        ("--batch_size=4", "--batch-size 4"),
        ("--Ultra_Fast", "--ultra-fast"),
        ("--fsat=3", "--fast"),  # takes no value
        ("--dry_runn --lite", "--dry-run"),
    ):
        (error,) = read(typed.split()).diagnostics
        assert (error.where, error.fix) == (f"command line: {typed.split()[0]}", fix)
        assert diagnostics(fix) == ""
    (error,) = read(["--lrr", "-1e-3"]).diagnostics  # the value is no second error, and no fix
    assert (error.did_you_mean, error.fix, error.allowed) == ("--lr", None, "a number, above 0")
    assert "unknown option '--prec'" in diagnostics("--prec fp32")  # no abbreviations
    assert [each.fix for each in read(["--dta", "my notes"]).diagnostics] == ["--data 'my notes'"]
    assert read(["exlpain"]).diagnostics[0].fix == "python -m launcher explain"


def test_help_is_printed_for_the_program_and_each_command(said):
    for line in ("--help", "-h", "run --help", "explain -h", "list --help"):
        printed = said(*line.split())
        assert printed.startswith("usage: python -m launcher")
        assert "--help" in printed
        assert max(map(len, printed.splitlines())) <= 100
    everything = " ".join(said("--help").split())
    assert all(option.flag in everything and option.sentence in everything for option in OPTIONS)
    assert all(f" {name} " in everything for name in COMMANDS)
    same = {"help": "--help", "help run": "--help", "help resume": "resume --help"}
    for line, other in same.items():
        assert said(*line.split()) == said(*other.split())
    for line in ("lits --help", "help lits"):
        assert "unknown command 'lits'" in said(*line.split(), code=2)


def test_the_version_of_the_program_and_of_each_library_is_printed(said):
    printed = dict(part.split(" ", 1) for part in said("--version").strip().split(", "))
    assert list(printed) == ["python", "gearshift", "torch", "deepspeed", "fairscale"]
    assert printed["torch"] == version("torch")


def test_empty_values_are_errors(said):
    for line in (["resume", ""], ["--resume", ""], ["--out="]):
        assert said(*line, "--dry-run", "--json", code=2)["diagnostics"]


def test_the_options_of_run_and_what_they_name():
    expected = """
        --model --mode --lite --resource-efficient --fast --ultra-fast --benchmark --engine
        --nproc --data --epochs --batch-size --num-workers --lr --seq-len --max-steps --seed
        --precision --deterministic --debug --profile --config --set --ds-config --out --dry-run --json
        --max-restarts --resume --reset --download-data --continuous-learning --for
        --stage --from --track --force
    """
    assert sorted(option.flag for option in OPTIONS) == sorted(expected.split())
    keys = setting_infos("language")
    assert {option.key for option in OPTIONS if option.key} <= set(keys)
    modes = [option.mode for option in OPTIONS if option.mode]
    assert modes == ["lite", "resource-efficient", "fast", "ultra-fast", "benchmark"]
    assert set(modes) <= set(names("modes"))


def test_the_exit_codes_and_the_files_of_a_run_folder():
    assert list(exit_codes.MEANINGS) == [0, 1, 2, 75, 130]
    names = ("SETTINGS", "ORIGINS", "LOG", "METRICS", "RESULT", "CHECKPOINTS", "REPORT")
    files = "settings.yaml origins.json log.txt metrics.jsonl result.json checkpoints report.html"
    assert [getattr(run_folder, name) for name in names] == files.split()


def test_an_argument_that_is_no_text_is_the_only_error_of_a_command():
    for command in COMMANDS:
        for words in (["a\udcff"], ["--set", "optim.lr=\udcff"], ["--frobnicate=\udcff"]):
            line = read([command, *words])
            [error] = line.diagnostics
            assert "UTF-8" in error.message and line.is_misread, (command, words)
