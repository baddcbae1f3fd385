"""Imports go one way, between packages and between the rooms of a package; lazy ones count."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from scripts.source import PACKAGES, Module, Tree
from scripts.structure import file_cycles, folder_cycles, upward_imports

OURS = {
    "slurm": ("slurm",),
    "engines": ("engines",),
    "models": ("models",),
    "training": ("training", "engines.base", "models.base"),
    "launcher": PACKAGES,
    "ds_configs": (),
}
"""The packages of this tree that each package may import."""

THEIRS = {
    "slurm": {"pydantic"},
    "engines": {"torch", "deepspeed", "fairscale", "numpy", "psutil", "pydantic"},
    "models": {
        *("torch", "numpy", "pydantic", "rich", "safetensors", "tokenizers", "transformers"),
        *(
            "charset_normalizer",
            "peft",
            "PIL",
            "cv2",
            "h5py",
            "mne",
            "openpyxl",
            "pyarrow",
            "sacrebleu",
            "scipy",
            "zss",
        ),
        *("bitsandbytes", "huggingface_hub"),
    },
    "training": {
        *("torch", "numpy", "psutil", "pydantic", "rich", "safetensors", "wandb", "tensorboard"),
        "mlflow",
    },
    "launcher": {
        *("torch", "numpy", "psutil", "pydantic", "rich", "yaml", "deepspeed", "requests", "shtab"),
        *("backports", "huggingface_hub", "jinja2", "onnxruntime", "packaging", "scipy"),
    },
    "ds_configs": set(),
}
"""The third-party packages that each package may import, by import name."""

DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "PIL": "pillow",
    "charset_normalizer": "charset-normalizer",
    "cv2": "opencv-python-headless",
    "backports": "backports.tarfile",
    "mlflow": "mlflow-skinny",
}
SHARED_BY_FAMILIES = ("models.base", "models.catalog", "models.common")


def wrong_directions(tree: Tree) -> list[str]:
    """Imports of Gearshift packages that the table does not allow."""
    found = []
    for module in tree.ours:
        for imported in module.imports:
            target = tree.target(imported)
            if target is None or target.split(".")[0] not in PACKAGES:
                continue
            if not any(_within(target, allowed) for allowed in OURS[module.package]):
                found.append(f"{module.path}:{imported.line} imports {target}")
            elif module.package == "models" and _other_family(module, target):
                found.append(f"{module.path}:{imported.line} imports another family, {target}")
    return found


def foreign_imports(tree: Tree) -> list[str]:
    """Imports of third-party packages that the table does not allow."""
    found = []
    for module in tree.ours:
        for imported in module.imports:
            top = imported.module.split(".")[0]
            if top in sys.stdlib_module_names or top in (*PACKAGES, ""):
                continue
            if top not in THEIRS[module.package]:
                found.append(f"{module.path}:{imported.line} imports {top}")
    return found


def collectives_in_models(tree: Tree) -> list[str]:
    """Uses of `torch.distributed` below models."""
    return [
        f"{module.path} names torch.distributed"
        for module in tree.ours
        if module.package == "models"
        and (
            any(i.dotted.startswith("torch.distributed") for i in module.imports)
            or re.search(r"\btorch\.distributed\b", module.text)
        )
    ]


def _within(name: str, folder: str) -> bool:
    return name == folder or name.startswith(folder + ".")


def _other_family(module: Module, target: str) -> bool:
    if target == "models" or any(_within(target, shared) for shared in SHARED_BY_FAMILIES):
        return False
    own = module.name.split(".")[:2]
    return target.split(".")[:2] != own


def test_every_package_is_in_both_tables():
    assert set(OURS) == set(THEIRS) == set(PACKAGES)


def test_every_package_that_may_be_imported_is_a_declared_dependency():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    declared = set(re.findall(r'^ {4}"([A-Za-z0-9._-]+)[>=<~;]', text, re.MULTILINE))
    named = {DISTRIBUTIONS.get(n, n) for names in THEIRS.values() for n in names}
    assert named <= declared


EXISTING = dict.fromkeys(
    [
        *("models/base.py", "models/language/model.py", "training/loop.py", "engines/catalog.py"),
        *("launcher/run/prepare.py", "launcher/run/worker.py", "launcher/continual/loop.py"),
        *("launcher/cli/parser.py", "launcher/api.py"),
    ],
    "",
)


@pytest.mark.parametrize(
    ("check", "path", "line"),
    [
        (wrong_directions, "engines/ddp.py", "import models.base"),
        (wrong_directions, "engines/ddp.py", "def late():\n    from training import loop"),
        (wrong_directions, "models/abr/task.py", "from models.language import model"),
        (wrong_directions, "training/loop.py", "from engines import catalog"),
        (wrong_directions, "training/loop.py", "import launcher.run.prepare"),
        (*(wrong_directions, "training/loop.py"), "if TYPE_CHECKING:\n    from launcher.run import prepare"),
        (wrong_directions, "slurm/submit.py", "from ..launcher.run import prepare"),
        (foreign_imports, "slurm/submit.py", "def f():\n    import torch"),
        (foreign_imports, "models/a.py", "import wandb"),
        (collectives_in_models, "models/abr/task.py", "import torch.distributed as dist"),
        (collectives_in_models, "models/abr/task.py", "from torch import distributed"),
        (upward_imports, "launcher/config/layers.py", "from launcher.run import worker"),
        (upward_imports, "launcher/compare/rows.py", "def f():\n    import launcher.continual.loop"),
        (upward_imports, "launcher/commands/run.py", "import launcher.cli.parser"),
        (upward_imports, "launcher/run/worker.py", "from launcher import api"),
        (upward_imports, "launcher/odd/a.py", "import launcher.run.worker"),
    ],
)
def test_an_import_against_a_table_is_found(built, check, path, line):
    assert len(check(built(EXISTING | {path: line}))) == 1


def test_a_cycle_through_a_lazy_import_is_found(built):
    tree = built(
        {
            "training/a.py": "from training import b",
            "training/b.py": "import training.c",
            "training/c.py": "def f():\n    from training.a import x",
            "training/d.py": "import training.a",
        }
    )
    assert file_cycles(tree) == ["training.a <-> training.b <-> training.c"]


def test_a_cycle_of_folders_without_a_cycle_of_files_is_found(built):
    tree = built(
        {
            "training/data/a.py": "import training.optim.a",
            "training/data/b.py": "",
            "training/optim/a.py": "",
            "training/optim/b.py": "import training.data.b",
        }
    )
    assert file_cycles(tree) == []
    assert folder_cycles(tree) == ["training.data <-> training.optim"]


def test_an_import_along_the_order_of_rooms_is_none(built):
    files = {"launcher/run/worker.py": "import launcher.config.layers", "launcher/api.py": ""}
    line = "import launcher.run.worker"
    files |= {"launcher/config/layers.py": "", "launcher/compare/rows.py": line}
    assert upward_imports(built(files)) == []
