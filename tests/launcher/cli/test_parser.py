"""Parsing of command lines, their errors, and help."""

from importlib.metadata import version
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import render
from launcher.cli.parser import read
from launcher.config.command_line import RUN
from launcher.config.options import OPTIONS


def args(line: str):
    command_line = read(line.split())
    assert render(command_line.diagnostics) == ""
    return command_line.args


def diagnostics(line: str) -> str:
    return render(read(line.split()).diagnostics)


def test_run_is_the_default_command():
    assert read([]).command.name == "run"
    assert read(["--lite"]).command == read(["run", "--lite"]).command
    assert vars(read(["--lite"]).args) == vars(read(["run", "--lite"]).args)


def test_short_options_are_settings_with_their_text_unchanged():
    assert args("--lr 1e-3 --batch-size 8 --data notes --nproc 2 --precision bf16").options == {
        "data.path": ("--data", "notes"),
        "train.micro_batch": ("--batch-size", "8"),
        "optim.lr": ("--lr", "1e-3"),
        "engine.nproc": ("--nproc", "2"),
        "precision": ("--precision", "bf16"),
    }


def test_every_setting_option_reaches_its_setting():
    for option in OPTIONS:
        if option.key is None or option.key in ("mode", "engine.name"):
            continue
        line = f"{option.flag} 3" if option.metavar else option.flag
        assert args(line).options == {option.key: (option.flag, "3" if option.metavar else "true")}


@pytest.mark.parametrize("mode", ["lite", "resource-efficient", "fast", "ultra-fast", "benchmark"])
def test_a_mode_has_an_option_of_its_name(mode):
    assert (args(f"--{mode}").mode, args(f"--{mode}").mode_option) == (mode, f"--{mode}")


def test_the_later_of_two_same_options_wins():
    assert args("--lr 1 --lr 2").options["optim.lr"] == ("--lr", "2")
    assert args("--mode fast --mode lite").mode == "lite"


def test_files_and_single_settings_keep_their_order():
    found = args("--config a.yaml --set x=1 --config b.json --set y=2")
    assert found.configs == [Path("a.yaml"), Path("b.json")]
    assert found.sets == ["x=1", "y=2"]


def test_a_value_may_follow_an_equals_sign_or_be_negative():
    assert args("--lr=1e-3").options == args("--lr 1e-3").options
    assert args("--lr -1e-3").options["optim.lr"] == ("--lr", "-1e-3")


def test_flags_without_a_setting():
    command_line = read(["--dry-run", "--json", "--out", "here"])
    assert command_line.flags == {"--dry-run", "--json"}
    assert command_line.out == Path("here")
    assert command_line.args.options == {}


def test_explain_takes_a_key_among_the_options_of_run():
    command_line = read(["explain", "--fast", "optim.lr", "--nproc", "2", "--out", "here"])
    assert (command_line.command.name, command_line.argument, command_line.args.mode) == (
        "explain",
        "optim.lr",
        "fast",
    )


def test_an_unknown_option_is_an_error_with_the_nearest_match():
    assert diagnostics("--epohcs 3").splitlines() == [
        "error: unknown option '--epohcs'",
        "  where         command line: --epohcs",
        f"  allowed       {len(RUN.options) + 1} options; see  python -m launcher --help",
        "  did you mean  --epochs",
        "  fix           --epochs 3",
    ]


def test_the_value_of_an_unknown_option_gives_no_second_error():
    assert diagnostics("--epohcs 3").count("error:") == 1
    assert diagnostics("--lrr -3").count("error:") == 1


@pytest.mark.parametrize(
    ("typed", "fix"),
    [
        ("--batch_size 4", "--batch-size 4"),
        ("--batch_size=4", "--batch-size 4"),
        ("--lrr -1e-3", "--lr -1e-3"),
        ("--Ultra_Fast", "--ultra-fast"),
        ("--fsat=3", "--fast"),  # takes no value
        ("--dry_runn --lite", "--dry-run"),
    ],
)
def test_the_fix_of_an_unknown_option_has_the_typed_value(typed, fix):
    assert diagnostics(typed).splitlines()[-1] == f"  fix           {fix}"
    assert diagnostics(fix) == ""


def test_a_value_with_blanks_is_quoted_in_the_fix():
    found = read(["--dta", "my notes"]).diagnostics
    assert [diagnostic.fix for diagnostic in found] == ["--data 'my notes'"]


def test_all_unknown_options_are_reported_together_in_order():
    found = [
        line for line in diagnostics("--aaa --lite --bbb 1 --ccc").splitlines() if "error" in line
    ]
    assert [line.split("'")[1] for line in found] == ["--aaa", "--bbb", "--ccc"]


def test_an_abbreviation_is_an_error():
    assert "unknown option '--prec'" in diagnostics("--prec fp32")


def test_an_unknown_command_is_an_error_with_the_nearest_match():
    assert diagnostics("exlpain").splitlines() == [
        "error: unknown command 'exlpain'",
        "  where         command line, first argument",
        "  allowed       run, resume, explain, list, plan, verify, evaluate, watch, compare, submit, "
        "export, predict, report, track, new-task, convert, data, doctor, completion; or options of run",
        "  did you mean  explain",
        "  fix           python -m launcher explain",
    ]


def test_a_model_mode_or_engine_without_its_option_suggests_the_option():
    assert "  did you mean  --engine zero2" in diagnostics("--lite zero2")
    assert "  did you mean  --mode fast" in diagnostics("--lr 1 fast")
    assert "  did you mean  --model language:tiny" in diagnostics("--lite language:tiny")


def test_a_missing_argument_is_an_error_with_an_example():
    assert diagnostics("completion").splitlines() == [
        "error: completion requires SHELL",
        "  where         command line: completion",
        "  allowed       bash, zsh, fish",
        "  fix           python -m launcher completion bash",
    ]


@pytest.mark.parametrize("line", ["--help", "-h", "run --help", "explain -h", "list --help"])
def test_help_is_printed(line, capsys):
    assert main(line.split()) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: python -m launcher")
    assert "--help" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_help_lists_commands_options_modes_layers_and_exit_codes(capsys):
    main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS:
        assert option.flag in printed
    assert "built-in < family <" in printed
    assert "< --config files < command line" in printed
    assert "75 stopped by a signal or a limit after saving" in printed
    assert "list models, modes or engines" in printed
    assert "ultra-fast" in printed


@pytest.mark.parametrize(
    ("line", "same"), [("help", "--help"), ("help run", "--help"), ("help resume", "resume --help")]
)
def test_help_takes_a_command(line, same, capsys):
    assert main(line.split()) == 0
    printed = capsys.readouterr().out
    main(same.split())
    assert printed == capsys.readouterr().out


@pytest.mark.parametrize("line", ["lits --help", "help lits"])
def test_help_of_an_unknown_command_is_an_error(line, capsys):
    assert main(line.split()) == 2
    assert "unknown command 'lits'" in capsys.readouterr().err


def test_a_command_has_some_options_of_run_and_some_of_its_own():
    command_line = read(["verify", "mine", "--engine", "ddp", "--nproc", "2", "--json"])
    assert command_line.diagnostics == []
    assert (command_line.argument, command_line.args.engine) == ("mine", "ddp")
    assert command_line.args.options == {"engine.nproc": ("--nproc", "2")}
    assert command_line.flags == {"--json"}

    command_line = read(["export", "mine", "--format", "hf", "--checkpoint=best", "--out", "there"])
    assert command_line.diagnostics == []
    assert command_line.values == {"--format": "hf", "--checkpoint": "best"}
    assert command_line.out == Path("there")


def test_the_version_of_the_program_and_of_each_library_is_printed(capsys):
    assert main(["--version"]) == 0
    printed = dict(part.split(" ", 1) for part in capsys.readouterr().out.strip().split(", "))
    assert list(printed) == ["python", "gearshift", "torch", "deepspeed", "fairscale"]
    assert printed["torch"] == version("torch")


@pytest.mark.parametrize("line", ["--fast --lite", "--mode fast --lite", "--lite --mode fast"])
def test_two_modes_are_an_error(line):
    assert "mode is set twice" in diagnostics(line)


def test_two_options_may_select_one_mode():
    assert args("--fast --mode fast").mode == "fast"


@pytest.mark.parametrize("line", [["resume", ""], ["--resume", ""], ["--out="]])
def test_an_empty_value_is_an_error(line, capsys):
    assert main([*line, "--dry-run"]) == 2
    assert "an empty value" in capsys.readouterr().err


def test_a_command_may_take_several_arguments():
    command_line = read(["report", "one", "--out", "both.html", "two"])
    assert command_line.diagnostics == []
    assert (command_line.argument, command_line.more) == ("one", ["two"])
    assert "report requires RUN" in diagnostics("report")
