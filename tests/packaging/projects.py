"""Small research projects beside an installation, whose folders have any names.

python -m tests.packaging.projects PYTHON FOLDER uses the program that PYTHON has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

NET = """\
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
"""
TASK = """\
import torch

from gearshift import CustomTask, Prediction
{imports}


class Line(CustomTask):
    def samples(self, split):
        return [(torch.full((2,), float(i)), float(i % 2)) for i in range(16)]

    def build(self):
        return Net()

    def measure(self, model, batch):
        error = model(batch["input"]).squeeze(1) - batch["target"].float()
        return {{"loss": error.square().sum()}}

    def setup_without_data(self):
        pass

    def predict(self, model, path):
        value = model(torch.ones(1, 2, device=self.context.device)).item()
        yield Prediction(path.stem, f"value {{value:.3f}}", {{}})
"""
SCRIPT = """\
{imports}

print(sum(weight.numel() for weight in Net().parameters()))
"""
PROJECTS = {
    "folders": (
        "models/net",
        "training/net",
        "engines/net",
        "launcher/net",
        "tests/net",
        "slurm/net",
    ),
    "packages": ("models/net", "training/net", "engines/net", "launcher", "tests/net", "slurm/net"),
}
"""The modules of each project beside its script and its task. Those of the second are in packages."""


def write(folder: Path, name: str) -> None:
    """Write a project: modules with a network, and a script and a custom task that import each of them."""
    modules = PROJECTS[name]
    for module in modules:
        path = folder / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(NET, encoding="utf-8")
        if name == "packages" and path.parent != folder:
            (path.parent / "__init__.py").touch()
    imports = "\n".join(f"from {module.replace('/', '.')} import Net" for module in modules)
    (folder / "train.py").write_text(SCRIPT.format(imports=imports), encoding="utf-8")
    (folder / "task.py").write_text(TASK.format(imports=imports), encoding="utf-8")
    (folder / "one.txt").write_text("1", encoding="utf-8")


def use(python: str, folder: Path, variables: Mapping[str, str]) -> None:
    """Run the script, then train the task on two processes, resume, predict and export it."""

    def run(*words: str) -> str:
        done = subprocess.run(
            [python, *words], cwd=folder, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{folder.name}: {words}\n{done.stdout}{done.stderr}"
        return done.stdout

    # `python -m launcher` would be the module of the project where it has one of this name.
    program = ("-m", "gearshift")
    assert run("train.py") == "17\n"
    short = ("--set", "train.micro_batch=2", "--max-steps")
    run(
        *program,
        "--model",
        "task:Line",
        "--nproc",
        "2",
        "--engine",
        "ddp",
        *short,
        "2",
        "--out",
        "run",
    )
    run(*program, "resume", "run", "--max-steps", "4", "--reset", "schedule")
    assert json.loads((folder / "run" / "result.json").read_text("utf-8"))["steps"] == 4
    assert "value " in run(*program, "predict", "run", "--input", "one.txt")
    run(*program, "export", "run", "--format", "safetensors", "--out", "exported")


def main() -> None:
    """Use each project with the Python of the arguments."""
    for name in PROJECTS:
        folder = Path(sys.argv[2], name)
        write(folder, name)
        use(sys.argv[1], folder, os.environ)
        print(f"{name}: its script and its custom task find its own modules")


if __name__ == "__main__":
    main()
