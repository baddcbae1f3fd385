"""Help, errors and lists import nothing heavy: no torch, DeepSpeed, W&B or transformers."""

from __future__ import annotations

import pytest

from scripts.source import Tree

HEAVY = {
    *("torch", "deepspeed", "fairscale", "wandb", "transformers", "tokenizers", "numpy"),
    *("PIL", "cv2", "h5py", "mne", "openpyxl", "pyarrow", "sacrebleu", "scipy", "zss"),
}
LIGHT = ("launcher.__main__", "engines.catalog", "models.catalog")
"""Entry points; settings, configs, commands and slurm are added to them."""


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
    """The import chains from `start` to something heavy, as `a > b > torch`."""
    found = []
    seen: set[str] = set()
    todo = [(start, start)]
    while todo:
        name, import_path = todo.pop()
        if name in seen or name not in tree.modules:
            continue
        seen.add(name)
        parent = name.rpartition(".")[0]
        todo.append((parent, f"{import_path} > {parent}"))
        for imported in tree.modules[name].imports:
            if not imported.eager:
                continue
            if imported.module.split(".")[0] in HEAVY:
                found.append(f"{import_path} > {imported.module}")
            elif target := tree.target(imported):
                todo.append((target, f"{import_path} > {target}"))
    return found


@pytest.mark.parametrize(
    "line",
    ["import torch", "from torch import nn", "try:\n    import wandb\nexcept ImportError: pass"],
)
def test_a_heavy_import_behind_another_module_is_found(built, line):
    tree = built(
        {
            "launcher/__main__.py": "from launcher.cli import parser",
            "launcher/cli/parser.py": "import launcher.deep.catalogs",
            "launcher/deep/__init__.py": line,
            "launcher/deep/catalogs.py": "",
        }
    )
    (import_path,) = heavy_loads(tree, "launcher.__main__")
    assert import_path.startswith("launcher.__main__ > launcher.cli.parser > launcher.deep")


def test_a_heavy_import_in_a_function_is_allowed(built):
    text = "if TYPE_CHECKING:\n    import torch\ndef f():\n    import torch"
    assert heavy_loads(built({"launcher/__main__.py": text}), "launcher.__main__") == []
