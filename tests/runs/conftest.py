"""Fixtures shared by the tests of whole command lines."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file

from gearshift.launcher.__main__ import main
from gearshift.training.checkpoint.reader import open_checkpoint

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = "".join(f'{{"prompt": "what is {i}", "response": "{i}"}}\n' for i in range(80))
"""A JSONL file of 80 requests, 64 of them for training."""


def environment():
    """An environment in which the program is found from any working directory."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def result(folder):
    """The result.json of a run."""
    return json.loads((folder / "result.json").read_text())


def lines(folder, kind="train"):
    """The lines of a kind in the metrics of a run."""
    text = (folder / "metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]


def losses(folder):
    """The logged losses of a run."""
    return [line["loss"] for line in lines(folder)]


def weights(folder):
    """The weights of the best checkpoint of a run, by name."""
    return load_file(folder / "best" / "model.safetensors")


def last(program, run):
    """The newest checkpoint of a run."""
    return open_checkpoint(program.folder / run / "last")


@dataclass(frozen=True)
class Program:
    """The installed program in a working directory of its own."""

    folder: Path

    def __call__(self, *args, prefix=(), **options):
        """Run a command line; its output and exit code."""
        command = [*prefix, sys.executable, "-m", "launcher", *args]
        given = {"cwd": self.folder, "env": environment(), "capture_output": True, "text": True}
        return subprocess.run(command, **given | options)

    def start(self, *args, **options):
        """Start a command line; its stdout is a pipe, and so is its stderr unless given."""
        given = {"cwd": self.folder, "env": environment(), "text": True}
        given |= dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([sys.executable, "-m", "launcher", *args], **given | options)

    def files(self):
        """The content of the working directory."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path)


@pytest.fixture
def inside(program, monkeypatch, capfd, one_thread):
    """As `program`, in this process, which has imported torch already: it takes most of the time."""
    monkeypatch.chdir(program.folder)

    def run(*args):
        capfd.readouterr()
        code = main(args)
        return subprocess.CompletedProcess(args, code, *capfd.readouterr())

    return run


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command line in a directory with data: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text(REQUESTS)

    def carry_out(*args):
        code = main(args)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return carry_out


@pytest.fixture
def bound_by_permissions():
    """A command prefix that removes root's permission to read and write everything."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root ignores permissions, and there is no setpriv to make it mind them")
    return ("setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search")


@pytest.fixture
def one_thread():
    """Threads that wait for one another are slow beside other tests."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def adapted(program):
    """The options of a run with adapters on a pretrained folder, in the folder of the program."""
    from tests.models.language.test_pretrained import CONFIGS, save  # needs transformers

    save(program.folder / "base", CONFIGS["llama"]())
    rows = [{"instruction": f"ask {i}", "output": f"answer {i % 7}"} for i in range(60)]
    (program.folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return (
        *("--model", "language:tiny", "--data", "rows.jsonl", "--max-steps", "6"),
        *("--set", "model.pretrained=base", "--set", "model.lora.rank=2", "--seq-len", "48"),
        *("--set", "save.every=3", "--set", "train.preview=false"),
    )
