"""The public interface: commands, options, exit codes and files of a run folder."""

import importlib

from launcher.base import exit_codes
from launcher.commands.catalog import COMMANDS
from launcher.config.options import OPTIONS, names
from launcher.config.schema import setting_infos
from launcher.run_folder import run_folder


def test_the_commands():
    expected = """
        run resume explain list plan verify evaluate watch compare submit export predict report track
        new-task convert data doctor completion
    """
    assert list(COMMANDS) == expected.split()


def test_every_command_has_an_implementation():
    for command in COMMANDS.values():
        assert callable(importlib.import_module(command.module).main)


def test_the_options_of_run():
    expected = """
        --model --mode --lite --resource-efficient --fast --ultra-fast --benchmark --engine
        --nproc --data --epochs --batch-size --num-workers --lr --seq-len --max-steps --seed
        --precision --deterministic --debug --profile --config --set --ds-config --out --dry-run --json
        --max-restarts --resume --reset --download-data --continuous-learning --max-hours
        --stage --from --track --force
    """
    assert sorted(option.flag for option in OPTIONS) == sorted(expected.split())


def test_short_options_name_existing_settings():
    keys = setting_infos("language")
    assert {option.key for option in OPTIONS if option.key} <= set(keys)


def test_mode_options_name_existing_modes():
    assert {option.mode for option in OPTIONS if option.mode} <= set(names("modes"))


def test_the_exit_codes():
    assert list(exit_codes.MEANINGS) == [0, 1, 2, 75, 130]


def test_the_files_of_a_run_folder():
    assert (
        run_folder.SETTINGS,
        run_folder.ORIGINS,
        run_folder.LOG,
        run_folder.METRICS,
        run_folder.RESULT,
        run_folder.CHECKPOINTS,
        run_folder.REPORT,
    ) == (
        "settings.yaml",
        "origins.json",
        "log.txt",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
        "report.html",
    )
