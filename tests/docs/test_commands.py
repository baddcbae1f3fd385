"""Every command and settings file in README and docs works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import main
from gearshift.launcher.config.command_line import DEFAULT
from gearshift.launcher.config.commands import COMMANDS
from tests.docs.pages import PATHS, ROOT, launcher_args, read
from tests.launcher import saved_runs
from tests.launcher.given import resolved
from tests.launcher.runs import trained

PAGES = [read(path) for path in PATHS]
ON_DRY = (DEFAULT, "resume", "compare", "submit")
REAL = ("verify", "export", "predict", "evaluate")
"""Commands that need a trained run."""
SLOW = pytest.mark.slow


def commands_by_page() -> dict[str, list[list[str]]]:
    """The commands that each page is the first to show; of README those that are quick."""
    found: dict[str, list[list[str]]] = {}
    for page in PAGES:
        shown = [args for b in page.blocks if b.language == "sh" for args in b.commands]
        earlier = [args for commands in found.values() for args in commands]
        is_readme = page.name == "README.md"
        found[page.name] = [
            args for args in shown if args not in earlier and not (is_readme and "verify" in args)
        ]
    return found


COMMANDS_OF = commands_by_page()
PYTHON = [page for page in PAGES if any(block.language == "python" for block in page.blocks)]
_LARGE = re.compile(r"language:(350M|1\.3B)")
_FILE_NAME = re.compile(r"^# ([a-z]+\.(?:yaml|json))$", re.MULTILINE)
Launch = Callable[[list[str], Path], "subprocess.CompletedProcess[str]"]


def fill(tmp_path: Path) -> None:
    """Write the data, the task and the run used in the pages."""
    (tmp_path / "notes").mkdir()
    for number in range(12):
        text = f"Note {number}. " + "The quick brown fox jumps over the lazy dog. " * 40
        (tmp_path / "notes" / f"{number}.txt").write_text(text)
    pairs = [(f"say {number}", f"echo {number}") for number in range(200)]
    rows = "".join(f"{question},{answer}\n" for question, answer in pairs)
    (tmp_path / "pairs.csv").write_text("input,output\n" + rows)
    lines = [f'{{"input": "{question}", "output": "{answer}"}}\n' for question, answer in pairs]
    (tmp_path / "chat.jsonl").write_text("".join(lines))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "say 3"}\n')
    shutil.copy(ROOT / "docs" / "examples" / "images.py", tmp_path)
    (tmp_path / "DoTA_dataset" / "imgs").mkdir(parents=True)
    trained(tmp_path / "runs" / "mine", resolved(model=None), 100, 200)


@pytest.fixture(scope="module")
def real_run(tmp_path_factory) -> Path:
    """A trained run with a checkpoint."""
    return saved_runs.train(tmp_path_factory.mktemp("trained"))


def with_dry_run(args: list[str]) -> list[str]:
    """`args` with --dry-run, if they start a training run, and a plan of a small model."""
    args = [_LARGE.sub("language:small", word) for word in args]
    is_run = not args or args[0].startswith("-") or args[0] in ON_DRY
    return [*args, "--dry-run"] if is_run and not {"--dry-run", "--help"} & set(args) else args


@pytest.fixture
def launch_here(monkeypatch, capsys) -> Launch:
    """Runs Gearshift in a folder, a training run with --dry-run.

    In this process, which has imported torch already: it takes most of the time.
    """

    def run(args: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", list(sys.path))
        capsys.readouterr()
        code = main(with_dry_run(args))
        return subprocess.CompletedProcess(args, code, *capsys.readouterr())

    return run


@pytest.mark.parametrize("is_readme", [True, pytest.param(False, marks=SLOW)])
def test_the_commands_of_the_pages_work(is_readme, tmp_path, request, launch_here):
    pages = [page for page in PAGES if (page.name == "README.md") == is_readme]
    commands = [(page, launcher_args(args)) for page in pages for args in COMMANDS_OF[page.name]]
    for number, (page, args) in enumerate(commands):
        if args is None:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        fill(folder)
        if args[:1] and args[0] in REAL:
            shutil.rmtree(folder / "runs" / "mine")
            real = request.getfixturevalue("real_run")
            for name in ("mine", "other"):
                shutil.copytree(real, folder / "runs" / name, symlinks=True)
        for block in page.blocks:  # settings files have their name in the first line
            if block.language == "yaml" and (match := _FILE_NAME.match(block.text)):
                (folder / match[1]).write_text(block.text)
        done = launch_here(args, folder)
        assert done.returncode == 0, (page.name, args, done.stdout + done.stderr)
        assert "warning" not in done.stderr.lower(), (page.name, args)


def test_other_programs_of_a_page_exist():
    for args in (args for commands in COMMANDS_OF.values() for args in commands):
        if launcher_args(args) is None and args[:2] == ["python", "-m"]:
            module = (ROOT / args[2].replace(".", "/")).with_suffix(".py").read_text()
            assert [w for w in args[3:] if w.startswith("--") and f'"{w}"' not in module] == []
        elif "/" in args[0] and not args[0].startswith(".venv/"):
            assert os.access(ROOT / args[0], os.X_OK), args


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```yaml" in page.text], ids=lambda page: page.name
)
def test_a_settings_file_of_a_page_is_read(page, tmp_path, launch_here):
    fill(tmp_path)
    for number, block in enumerate(b for b in page.blocks if b.language == "yaml"):
        (tmp_path / f"{number}.yaml").write_text(block.text)
        done = launch_here(["--config", f"{number}.yaml", "--model", "language:small"], tmp_path)
        assert done.returncode == 0, done.stderr


PYTHON_OF_PAGES = """\
import os, sys
import gearshift
whole = gearshift.train
def train(*args, settings, **more):
    return whole(*args, settings=settings | ({"data.fraction": 0.05} if "model" in more else {}), **more)
gearshift.train = train
for folder in sys.argv[1:]:
    os.chdir(folder)
    with open("page.py") as file:
        exec(file.read(), globals())
"""
"""Runs the code of each page on little data; in one process, since imports take most of the time."""


@SLOW
def test_python_of_the_pages_runs(tmp_path):
    folders = [tmp_path / page.path.stem for page in PYTHON]
    for folder, page in zip(folders, PYTHON, strict=True):
        folder.mkdir()
        fill(folder)
        (folder / "page.py").write_text(
            "\n".join(b.text for b in page.blocks if b.language == "python")
        )
    line = [sys.executable, "-c", PYTHON_OF_PAGES, *map(str, folders)]
    subprocess.run(line, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True)


def test_every_command_is_shown_somewhere():
    shown = [
        launcher_args(args)
        for page in PAGES
        for block in page.blocks
        if block.language == "sh"
        for args in block.commands
    ]
    # This one needs a server and is not run by these tests.
    if any("\npython -m launcher track runs/" in page.text for page in PAGES):
        shown.append(["track"])
    first = {args[0] for args in shown if args}
    assert [name for name in COMMANDS if name not in first | {DEFAULT}] == []
