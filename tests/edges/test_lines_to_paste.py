"""Lines to paste, wherever the program makes them, name options, settings and commands it has."""

from __future__ import annotations

import ast
import io
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import PROGRAM
from launcher.commands.catalog import ALIASES, COMMANDS
from launcher.config import other_tools
from launcher.config.options import HELP
from launcher.config.schema import setting_infos
from models.catalog import FAMILIES
from tests.edges import test_lines_of_commands as commands
from tests.edges import test_lines_of_data as data
from tests.edges import test_lines_of_settings as of_settings
from tests.edges.pasting import (
    PACKAGES,
    QUICK,
    ROOT,
    a_run,
    alternatives,
    fixes,
    folder_of,
    text_of,
    trees,
)
from tests.runs.conftest import REQUESTS

FLAG = re.compile(r"(?<![\w§-])--[a-z][a-z0-9-]*")
SETTING = re.compile(r"--set ['\"]?([A-Za-z_][\w.]*)=")
COMMAND = re.compile(rf"{re.escape(PROGRAM)} ([a-z][a-z-]*)")
OF_OTHERS = {
    "--shm-size": "docker run",
    "--memory": "docker run",
    "--mem": "sbatch",
    "--local-dir": "hf download",
    "--force-reinstall": "pip install",
    "--install": "xcode-select",
    "--gpus": "docker run, beside the option of plan",
    "--ipc": "docker run",
    "--ulimit": "docker run",
}
"""Options of other programs in fixes, by name."""
OF_TASKS = {
    "model.folder": "of custom tasks",
    "model.width": "of the template of a custom task",
    "KEY": "the form of --set",
}
"""Settings that no family has, and why."""


def texts() -> Iterator[tuple[str, str]]:
    """Each text of the packages with its place: also the last lines, the advice, the faults."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.expr) and (text := text_of(node)) is not None:
                yield f"{path}:{node.lineno}", text


@cache
def settings() -> frozenset[str]:
    return frozenset(key for family in FAMILIES for key in setting_infos(family))


@cache
def flags() -> frozenset[str]:
    options = (option.flag for command in COMMANDS.values() for option in command.options)
    return frozenset((*options, HELP.flag))


def test_the_search_sees_the_fixes_of_every_package():
    found = {place.partition("/")[0] for place, _ in fixes()}
    assert found == {*PACKAGES} - {"slurm"}
    assert len(fixes()) > 200


def test_every_option_in_a_fix_is_one_of_a_command():
    unknown = [
        (place, flag)
        for place, text in fixes()
        for flag in FLAG.findall(text)
        if flag not in flags() and flag not in OF_OTHERS
    ]
    assert unknown == []


def test_every_setting_to_set_exists():
    unknown = [
        (place, key)
        for place, text in texts()
        for key in SETTING.findall(text)
        if key not in settings() and key not in OF_TASKS
    ]
    assert unknown == []


def test_every_command_to_type_exists():
    unknown = [
        (place, name)
        for place, text in texts()
        for name in COMMAND.findall(text)
        if name not in COMMANDS and name not in ALIASES and name != "help"
    ]
    assert unknown == []


ENTRIES = [
    (kind, entry["words"][0], entry)
    for kind in ("commands", "options")
    for entry in other_tools.table()[kind]
]


@pytest.mark.parametrize(("kind", "word", "entry"), ENTRIES, ids=lambda value: str(value)[:20])
def test_every_line_for_other_tools_names_what_exists(kind, word, entry):
    lines = [entry["line"], entry.get("alone", ""), *entry.get("values", {}).values()]
    for line in lines:
        assert {*SETTING.findall(line)} <= settings()
        assert {*FLAG.findall(line)} <= flags()
        if kind == "commands" and line and not line.startswith("-"):
            assert line.split()[0] in COMMANDS


def test_every_setting_of_other_tools_has_one_here():
    assert {*other_tools.table()["settings"]} <= settings()


UNRUN = "the program that it names needs a network, a GPU, Slurm or another machine"
WORDS = "a part of a sentence"
EXPRESSION = "a part of an expression in Python"
ELSEWHERE = {
    "launcher/api.py:_no_run": "edges/test_lines_of_commands.py:test_what_a_python_call_prints",
    "launcher/config/feature_checks.py:check_download": "edges/test_lines_of_commands.py:"
    "test_the_example_of_a_download",
    "launcher/commands/predict.py:_generate": "launcher/test_predict.py:test_",
    "launcher/config/batching.py:batch_line": "edges/test_lines_of_data.py:test_",
    "launcher/run/failures.py:_as_typed": "edges/test_lines_of_data.py:test_",
    "launcher/config/python_arguments.py:no_argument": "edges/test_python_api.py:"
    "test_errors_name_the_arguments_and_a_fix_that_python_reads",
    "launcher/config/originals.py:ignored_variables": "launcher/config/test_originals.py:"
    "test_a_variable_that_only_an_original_reads_is_a_warning",
    "models/doc_translation/readers/pairs.py:_check_header": "models/doc_translation/test_pairs.py:"
    "test_",
    "models/eeg_text/readers/tables.py:pairs": "edges/test_recording_events.py:"
    "test_columns_of_bids_and_of_texts_have_meanings_too",
    "models/eeg_text/readers/files.py:read": "models/eeg_text/readers/test_zuco.py:"
    "test_columns_of_tables_are_not_those_of_a_mat_file",
    "launcher/run/prepare.py:check_memory": "launcher/run/test_memory_check.py:test_",
    "launcher/run_folder/checkpoint_search.py:no_run": "launcher/run_folder/test_checkpoint_search.py:test_",
    "launcher/saved_runs/rerun.py:_located": "runs/test_verify_and_export.py:test_",
    "launcher/run/faults.py:": "launcher/run/test_fixes.py:test_",
}
"""Places whose lines another test runs, or checks."""
NOT_RUN = {
    **dict.fromkeys(
        (
            *(
                "launcher/doctor/packages.py:check_package",
                "launcher/doctor/packages.py:check_python",
            ),
            *("launcher/doctor/packages.py:check_others", "launcher/doctor/system.py:check_memory"),
            "launcher/doctor/system.py:check_locked_memory",
            *(
                "launcher/doctor/system.py:check_open_files",
                "launcher/download/transfer.py:Transfer._read",
            ),
            "launcher/doctor/system.py:check_shared_memory",
            *(
                "models/common/recordings/files.py:_unreadable",
                "models/event_seg/readers/hdf5.py:_check_filters",
            ),
            "models/language/readers/tables.py:parquet_rows",
        ),
        UNRUN,
    ),
    "models/custom.py:CustomTask._check_scalars": EXPRESSION,
    "models/eeg_text/readers/tables.py:sentences": WORDS,
    "engines/zero/config.py:_unknown": WORDS,
}
"""Places without a line that can be run here, and why."""
PLAIN = f"--model language:tiny --data mine.jsonl {QUICK}"
STAGED = "--mode staged --model language:tiny --dry-run"
UNPROVOKED = {
    "launcher/base/disk.py:check_writable": f"{PLAIN} --out new",
    "launcher/config/feature_checks.py:check_launcher": "--continuous-learning --data texts --nproc 1 --dry-run",
    "launcher/config/validate.py:unused_diagnostics": f"{PLAIN} --dry-run",
    "launcher/config/check.py:_paths": "resume runs/mine --set model.pretrained=null --dry-run",
    "launcher/report/data_check.py:several": "data check mine.jsonl --model language",
    "launcher/doctor/system.py:check_disk_speed": f"{PLAIN} --set save.every=null --dry-run",
    "launcher/download/fetch.py:_Fetch.run": f"{PLAIN} --set download.folder=new --dry-run",
    "launcher/download/fetch.py:fetch_for_run": "data fetch --config mine.yaml",
    "launcher/saved_runs/predict.py:files": "predict runs/mine --input mine.jsonl --max-tokens 1",
    "launcher/saved_runs/predict.py:check_numbers": "predict runs/mine --input hello",
    "launcher/run_folder/checkpoint_search.py:unreadable": "resume runs/mine",
    "launcher/saved_runs/saved_model.py:SavedModel.check_pretrained": "resume runs/mine --set model.pretrained=null --dry-run",
    "launcher/saved_runs/saved_model.py:_open_export": "export runs/mine --format safetensors",
    "launcher/run/experience.py:spec_at": "resume runs/mine --set save.every=1 --dry-run",
    "launcher/run/worker.py:_check_room": f"{PLAIN} --out new",
    "launcher/run_folder/lock.py:_acquire": f"{PLAIN} --out new",
    "launcher/run_folder/records.py:_unreadable": "report runs/mine",
    "launcher/stages/pipeline.py:_misplaced": "resume runs/mine",
    "launcher/stages/pipeline.py:_not_ours": f"{STAGED} --stage text",
    "models/common/split.py:save_split": "resume runs/mine --reset data --dry-run",
    "models/doc_translation/pretrained.py:_too_few_filled": "--model doc_translation --set 'model.partial=[global]' --dry-run",
    "models/doc_translation/readers/pairs.py:_check_font": "--model doc_translation --set data.font=mine.jsonl --dry-run",
    "models/doc_translation/readers/pairs.py:PairPage.image": "--model doc_translation --set data.paragraphs=1 --dry-run",
    "models/eeg_text/recordings.py:split_items": "--model eeg_text --set data.split=sentence --dry-run",
    "models/language/embedded.py:read_documents": "--data embedded:commands --dry-run",
    "models/language/task.py:LanguageTask._row_length": f"{PLAIN} --set data.seq_len=64",
    "training/checkpoint/base_weights.py:BaseWeights.check": "resume runs/mine --set model.pretrained=null --dry-run",
    "training/resources/oom.py:OutOfMemory.__init__": f"{PLAIN} --resource-efficient --dry-run",
}  # fmt: skip
"""The line of what cannot be provoked in a test of seconds, such as a full disk, as one types it."""


def test_each_place_that_gives_a_line_has_a_case():
    """A new line needs one: in CASES of a test of lines, with input that provokes it."""
    places = Counter(place for place, text in fixes() if alternatives(text))
    cases = Counter(case.place for case in (*of_settings.CASES, *data.CASES, *commands.CASES))
    others = {**ELSEWHERE, **NOT_RUN, **UNPROVOKED}
    missing = {place for place in places - cases if place not in others}
    assert missing == set(), "lines to paste without a case"
    assert {*cases, *others} - {place for place, _ in fixes()} == set(), "cases of no place"


@pytest.mark.parametrize("place", ELSEWHERE)
def test_a_test_that_runs_a_line_exists(place):
    path, _, name = ELSEWHERE[place].partition(":")
    assert f"def {name}" in (ROOT / "tests" / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("place", UNPROVOKED)
def test_a_line_that_cannot_be_provoked_here_starts(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("hello"))
    a_run(Path("runs/mine"))
    folder_of(a_jsonl=REQUESTS)(Path("texts"))
    Path("mine.jsonl").write_text(REQUESTS)
    source = Path("mine.jsonl").absolute().as_uri()
    Path("mine.yaml").write_text(f"download:\n  files: [{source}]\n")
    assert main(shlex.split(UNPROVOKED[place])) == 0


@pytest.mark.parametrize("place", [place for place, why in NOT_RUN.items() if why == UNRUN])
def test_a_line_of_another_program_is_one_that_a_shell_reads(place):
    for text in (text for at, text in fixes() if at == place):
        for line in (line for lines in alternatives(text) for line in lines):
            if not line.startswith("--"):
                done = subprocess.run(["bash", "-n", "-c", line], capture_output=True)
                assert done.returncode == 0, line


SHELL_WORDS = re.compile(r"[\[\]<>*?]")


def test_the_lines_are_set_apart_and_quoted_for_every_shell():
    """By two spaces; brackets in quotes: zsh looks for files of that name."""
    wrong = []
    for place, text in fixes():
        lines = [line for found in alternatives(text) for line in found]
        words = re.sub("|".join(map(re.escape, lines)), "", text) if lines else text
        wrong += [(place, text) for _ in [0] if FLAG.search(words) or SETTING.search(words)]
        for line in lines:
            plain = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
            if line.startswith("--set") and SHELL_WORDS.search(plain):
                wrong.append((place, line))
            if line.startswith("--") and re.search(r"[,;:](?: |$)", plain):
                wrong.append((place, line))
    assert [(place, text) for place, text in wrong if place not in WORDS_ONLY] == []


WORDS_ONLY = {
    "launcher/doctor/packages.py:check_compiler": "a package that a system may have",
}
"""Places whose words name an option of another program."""
