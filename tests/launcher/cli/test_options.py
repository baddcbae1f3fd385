"""The public interface: commands, options, exit codes and files of a run folder."""

import importlib

from launcher.base import exit_codes
from launcher.commands.catalog import COMMANDS
from launcher.config.options import OPTIONS, names
from launcher.config.schema import setting_infos
from launcher.run_folder import run_folder


def test_the_commands_and_their_implementations():
    expected = """
        run resume explain list plan verify evaluate watch compare submit export predict report track
        new-task convert data doctor completion
    """
    assert list(COMMANDS) == expected.split()
    for command in COMMANDS.values():
        assert callable(importlib.import_module(command.module).main)


def test_the_options_of_run_and_what_they_name():
    expected = """
        --model --mode --lite --resource-efficient --fast --ultra-fast --benchmark --engine
        --nproc --data --epochs --batch-size --num-workers --lr --seq-len --max-steps --seed
        --precision --deterministic --debug --profile --config --set --ds-config --out --dry-run --json
        --max-restarts --resume --reset --download-data --continuous-learning --max-hours
        --stage --from --track --force
    """
    assert sorted(option.flag for option in OPTIONS) == sorted(expected.split())
    keys = setting_infos("language")
    assert {option.key for option in OPTIONS if option.key} <= set(keys)
    assert {option.mode for option in OPTIONS if option.mode} <= set(names("modes"))


def test_the_exit_codes_and_the_files_of_a_run_folder():
    assert list(exit_codes.MEANINGS) == [0, 1, 2, 75, 130]
    files = (run_folder.SETTINGS, run_folder.ORIGINS, run_folder.LOG, run_folder.METRICS)
    assert files == ("settings.yaml", "origins.json", "log.txt", "metrics.jsonl")
    files = (run_folder.RESULT, run_folder.CHECKPOINTS, run_folder.REPORT)
    assert files == ("result.json", "checkpoints", "report.html")
