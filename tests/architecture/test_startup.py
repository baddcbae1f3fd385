"""Help, errors and listings load nothing heavy: no torch, DeepSpeed, W&B or transformers."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from scripts.source import Tree

HEAVY = {
    *("torch", "deepspeed", "fairscale", "wandb", "transformers", "tokenizers", "numpy"),
    *("PIL", "cv2", "h5py", "mne", "openpyxl", "sacrebleu", "scipy", "zss"),
}
LIGHT = ("launcher.__main__", "engines.catalog", "models.catalog")
"""Where a start begins, and what it reads; settings, configs and slurm are added to them."""


def light_modules(tree: Tree) -> list[str]:
    """The modules that must load without anything heavy."""
    return [
        m.name
        for m in tree.ours
        if m.name in LIGHT
        or m.package == "slurm"
        or m.name.endswith((".settings", ".config"))
        or m.name.startswith("launcher.commands.")
    ]


def heavy_loads(tree: Tree, start: str) -> list[str]:
    """The ways by which loading `start` loads something heavy, as `a > b > torch`."""
    faults = []
    seen: set[str] = set()
    todo = [(start, start)]
    while todo:
        name, way = todo.pop()
        if name in seen or name not in tree.modules:
            continue
        seen.add(name)
        parent = name.rpartition(".")[0]
        todo.append((parent, f"{way} > {parent}"))
        for imported in tree.modules[name].imports:
            if not imported.eager:
                continue
            if imported.module.split(".")[0] in HEAVY:
                faults.append(f"{way} > {imported.module}")
            elif target := tree.target(imported):
                todo.append((target, f"{way} > {target}"))
    return faults


def test_what_answers_at_once_loads_nothing_heavy(house):
    assert [fault for name in light_modules(house) for fault in heavy_loads(house, name)] == []


@pytest.mark.parametrize("name", LIGHT)
def test_the_beginning_of_a_start_exists(name):
    assert importlib.util.find_spec(name) is not None


def test_a_real_start_has_nothing_heavy_in_memory():
    code = f"import sys, launcher.__main__; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "line",
    ["import torch", "from torch import nn", "try:\n    import wandb\nexcept ImportError: pass"],
)
def test_a_heavy_import_behind_another_module_is_found(built, line):
    tree = built(
        {
            "launcher/__main__.py": "from launcher import cli",
            "launcher/cli/parser.py": "import launcher.deep.catalogs",
            "launcher/deep/__init__.py": line,
            "launcher/deep/catalogs.py": "",
        }
    )
    (fault,) = heavy_loads(tree, "launcher.__main__")
    assert fault.startswith("launcher.__main__ > launcher.cli.parser > launcher.deep")


def test_a_heavy_import_where_it_is_used_is_no_fault(built):
    text = "if TYPE_CHECKING:\n    import torch\ndef f():\n    import torch"
    assert heavy_loads(built({"launcher/__main__.py": text}), "launcher.__main__") == []
