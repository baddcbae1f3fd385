"""This checkout passes each check of its structure, and each check finds what it is for.

Ruff refuses relative imports, reads of the environment, files without a docstring.
"""

from __future__ import annotations

import ast
import gc
import re
import sys
from pathlib import Path

import pytest

from gearshift.engines.catalog import ENGINES
from gearshift.models.catalog import FAMILIES
from scripts.structure import (
    PACKAGES,
    Tree,
    broad_excepts,
    crumbs,
    dense_files,
    file_cycles,
    folder_cycles,
    functions_of_many_names,
    large_functions,
    read,
    reading,
    upward_imports,
)
from scripts.write_docs import _read as read_once
from scripts.write_docs import written

MOST_NODES = 408_000
"""Of the product; more syntax has to replace other syntax."""
DENSEST = 9.0
"""Nodes a code line, of each package and of the product."""
MOST_PER_1000 = {
    "several values in one statement": 2.5,
    "comprehensions": 35,
    "conditional expressions": 20,
    "walrus": 2,
}
"""In 1,000 code lines of the product."""
LARGEST_FILE = 4_600
"""In syntax nodes; lines are free."""
MOST_BROAD_EXCEPTS, MOST_CRUMBS = 6, 20
NAMELESS = {"util", "utils", "helper", "helpers", "misc", "stuff"}
NAMELESS_CLASS = re.compile(r"(Manager|Helper|Handler|Utils?|Misc)$")
TRUST = re.compile(r"\b(allow_pickle|trust_remote_code)['\"]?\s*[:=]\s*True")
ADVICE = re.compile(rf"\buse ({'|'.join(ENGINES)})\b")
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
        *("peft", "PIL", "h5py", "mne", "openpyxl", "pyarrow", "sacrebleu", "scipy", "zss"),
        *("bitsandbytes", "charset_normalizer", "huggingface_hub"),
    },
    "training": {
        *("torch", "numpy", "psutil", "pydantic", "rich", "safetensors", "wandb", "tensorboard"),
        *("mlflow", "PIL", "pynvml"),
    },
    "launcher": {
        *("torch", "numpy", "psutil", "pydantic", "rich", "yaml", "deepspeed", "requests", "shtab"),
        *("backports", "huggingface_hub", "jinja2", "onnxruntime", "packaging", "scipy"),
    },
    "ds_configs": set(),
}
"""The third-party packages that each package may import, by import name."""
DISTRIBUTIONS = {
    "pynvml": "nvidia-ml-py",
    **{"yaml": "pyyaml", "PIL": "pillow"},
    **{"backports": "backports.tarfile", "mlflow": "mlflow-skinny"},
    "charset_normalizer": "charset-normalizer",
}
SHARED_BY_FAMILIES = {"base", "catalog", "common"}


def long_files(tree: Tree) -> list[str]:
    """Files over the longest length; tests may be longer."""
    return [
        f"{m.path}"
        for m in tree.modules.values()
        if m.package != "tests" and len(m.nodes) > LARGEST_FILE
    ]


def vague_names(tree: Tree) -> list[str]:
    """Files, folders and classes with names that do not describe their content."""
    found = [
        str(m.path) for m in tree.modules.values() if NAMELESS & set(m.path.with_suffix("").parts)
    ]
    nodes = (
        (m, node) for m in tree.ours for node in ast.walk(m.tree) if isinstance(node, ast.ClassDef)
    )
    return found + [
        f"{m.path}:{node.lineno}" for m, node in nodes if NAMELESS_CLASS.search(node.name)
    ]


def long_docstrings(tree: Tree) -> list[str]:
    """Modules whose docstring is not one sentence."""
    texts = {m.path: ast.get_docstring(m.tree) or "" for m in tree.ours}
    many = re.compile(r"\n\n|[a-z\])`][.!?]\s+[A-Z]")
    return [
        f"{path}"
        for path, text in texts.items()
        if not text.endswith((".", "?")) or many.search(text)
    ]


def code_in_init(tree: Tree) -> list[str]:
    """`__init__` files with more than a docstring; launcher's begins the program."""
    inits = (
        m for m in tree.modules.values() if m.path.name == "__init__.py" and m.name != "launcher"
    )
    return [str(m.path) for m in inits if m.tree.body[1:]]


def wrong_directions(tree: Tree) -> list[str]:
    """Imports of our packages that the table does not allow, and of another family."""
    found = []
    for module, line, target in tree.edges:
        is_allowed = any(f"{target}.".startswith(f"{allowed}.") for allowed in OURS[module.package])
        if module.package == "models" and is_allowed:
            own, other = (name.split(".")[1:2] for name in (module.name, target))
            is_allowed = not other or own == other or other[0] in SHARED_BY_FAMILIES
        if not is_allowed:
            found.append(f"{module.path}:{line} imports {target}")
    return found


def foreign_imports(tree: Tree) -> list[str]:
    """Imports of third-party packages that the table does not allow."""
    tops = ((m, line, base.split(".")[0]) for m in tree.ours for line, base, _ in m.imports)
    known = {*sys.stdlib_module_names, "gearshift"}
    return [
        f"{m.path}:{line} imports {t}" for m, line, t in tops if t not in known | THEIRS[m.package]
    ]


def bare_imports(tree: Tree) -> list[str]:
    """Imports by which a module of ours would be loaded a second time, without `gearshift`."""
    imports = ((m, line, base) for m in tree.modules.values() for line, base, _ in m.imports)
    return [
        f"{m.path}:{line} imports {base}"
        for m, line, base in imports
        if base.split(".")[0] in PACKAGES
    ]


def collectives_in_models(tree: Tree) -> list[str]:
    """Uses of `torch.distributed` below models."""
    models = [m for m in tree.ours if m.package == "models"]
    names = {m.path: [m.text, *(dotted for _, _, dotted in m.imports)] for m in models}
    return [f"{path}" for path, texts in names.items() if "torch.distributed" in " ".join(texts)]


def trusted_files(tree: Tree) -> list[str]:
    """Calls by which a library runs the code of a file."""
    return [str(module.path) for module in tree.ours if TRUST.search(module.text)]


def known_engines(tree: Tree) -> list[str]:
    """Texts outside engines/ that are the name of an engine, or advise one; families in training.

    In models, `local` is also a part of a model.
    """
    names = {"launcher": {*ENGINES}, "training": {*ENGINES, *FAMILIES}, "models": set[str]()}
    return [
        f"{module.path}:{node.lineno} {node.value}"
        for module in tree.ours
        if module.package in names
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value in names[module.package] or ADVICE.search(node.value)
    ]


@pytest.fixture(scope="session")
def checkout() -> Tree:
    """This checkout, as the generated parts of the docs have parsed it."""
    gc.disable()  # nothing of it is garbage, and searching it takes longer than reading it
    tree = read_once(Path(__file__).parents[2])
    gc.freeze()
    gc.enable()
    return tree


@pytest.fixture
def built(tmp_path):
    """A function that parses a tree of the given files."""

    def build(files: dict[str, str]) -> Tree:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return read(tmp_path)

    return build


LONG = "x = 1\n" * (LARGEST_FILE // 3)
LARGE = f"def f():\n    return [{'1, ' * 700}]"
NAMES = "".join(f"    x{number} = 1\n" for number in range(26))
INNER = "".join(f"    [x{number} for x{number} in x]\n" for number in range(26))
BROAD = "try:\n    pass\nexcept{}:\n    {}"
FILES = dict.fromkeys(
    [
        *("models/base.py", "models/language/model.py", "training/loop.py", "engines/catalog.py"),
        *("launcher/run/prepare.py", "launcher/run/worker.py", "launcher/continual/loop.py"),
        *("launcher/cli/parser.py", "launcher/api.py"),
    ],
    "",
)
FAULTS = [
    (long_files, "training/loop.py", LONG),
    (dense_files, "training/a.py", "a = [1, 2, 3, 4, 5, 6, 7, 8, 9]"),
    (large_functions, "training/a.py", LARGE),
    (functions_of_many_names, "training/a.py", f"def f():\n{NAMES}"),
    (vague_names, "training/utils.py", ""),
    (vague_names, "training/a.py", "class CheckpointManager: pass"),
    (code_in_init, "training/__init__.py", '"""It."""\nX = 1'),
    (wrong_directions, "engines/ddp.py", "import gearshift.models.base"),
    (wrong_directions, "engines/ddp.py", "def late():\n    from gearshift.training import loop"),
    (wrong_directions, "models/abr/task.py", "from gearshift.models.language import model"),
    (
        wrong_directions,
        "training/loop.py",
        "if TYPE_CHECKING:\n    from gearshift.launcher.run import prepare",
    ),
    (foreign_imports, "slurm/submit.py", "def f():\n    import torch"),
    (foreign_imports, "models/a.py", "import wandb"),
    (bare_imports, "tests/a.py", "def f():\n    from models import base"),
    (bare_imports, "training/a.py", "import engines.base as contract"),
    (collectives_in_models, "models/abr/task.py", "from torch import distributed"),
    (upward_imports, "launcher/config/layers.py", "from gearshift.launcher.run import worker"),
    (
        upward_imports,
        "launcher/compare/rows.py",
        "def f():\n    import gearshift.launcher.continual.loop",
    ),
    (upward_imports, "launcher/run/worker.py", "from gearshift.launcher import api"),
    (upward_imports, "launcher/odd/a.py", "import gearshift.launcher.run.worker"),
    (trusted_files, "training/a.py", "numpy.load(path, allow_pickle=True)"),
    (broad_excepts, "training/a.py", BROAD.format(" (OSError, BaseException) as e", "pass")),
    (known_engines, "training/a.py", "if engine == 'ddp':\n    pass"),
    (known_engines, "training/a.py", "raise ValueError('use local or ddp')"),
    (crumbs, "training/a.py", "import gearshift.training.loop"),
]
FAULTLESS = [
    (functions_of_many_names, "training/a.py", f"def f():\n    x = [{'1, ' * 30}]\n{INNER}"),
    (broad_excepts, "training/a.py", BROAD.format(" Exception", "tidy()\n    raise")),
    (upward_imports, "launcher/continual/a.py", "import gearshift.launcher.run.worker"),
    (wrong_directions, "models/abr/task.py", "from gearshift.models import base"),
]


@pytest.mark.parametrize(("check", "path", "text"), [*FAULTS, *FAULTLESS])
def test_a_check_finds_a_fault_and_nothing_else(built, check, path, text):
    assert len(check(built(FILES | {path: text}))) == ((check, path, text) in FAULTS)


def test_code_lines_are_those_without_blanks_comments_and_docstrings(built):
    text = '''"""Module."""

# Why.
a, b = c, d  # beside


class A:
    """Class.

    More.
    """

    x = """a text
    of two lines"""
    """What the field is."""
'''
    tree = built({"training/a.py": text})
    module = tree.modules["training.a"]
    assert module.code_lines == 4
    counts = reading([module])
    assert counts.nodes == len(list(ast.walk(ast.parse(text))))
    assert counts.per_1000["several values in one statement"] == 250
    assert counts.per_1000["walrus"] == 0


def test_a_docstring_of_two_sentences_is_found(built):
    texts = [
        '"""No stop"""',
        '"""One sentence. And one more."""',
        '"""One.\n\nTwo."""',
        '"""It."""',
    ]
    tree = built({f"training/{number}.py": text for number, text in enumerate(texts)})
    assert long_docstrings(tree) == [f"training/{number}.py" for number in range(3)]


def test_cycles_through_lazy_imports_and_of_folders_are_found(built):
    tree = built(
        {
            "training/a.py": "from gearshift.training import b",
            "training/b.py": "import gearshift.training.c",
            "training/c.py": "def f():\n    from gearshift.training.a import x",
            "training/d.py": "import gearshift.training.a",
            "training/data/a.py": "import gearshift.training.optim.a",
            "training/data/b.py": "",
            "training/optim/a.py": "",
            "training/optim/b.py": "import gearshift.training.data.b",
        }
    )
    files = "training.a <-> training.b <-> training.c"
    assert file_cycles(tree) == [files]
    assert sorted(folder_cycles(tree)) == [files, "training.data <-> training.optim"]


CHECKS = [
    *(long_files, vague_names, long_docstrings, code_in_init, wrong_directions, foreign_imports),
    bare_imports,
    dense_files,
    large_functions,
    functions_of_many_names,
    *(
        collectives_in_models,
        file_cycles,
        folder_cycles,
        upward_imports,
        trusted_files,
        known_engines,
    ),
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_checkout_passes(checkout, check):
    assert check(checkout) == []


def test_the_checkout_has_few_broad_excepts_and_short_files_and_packages_everywhere(checkout):
    assert len(broad_excepts(checkout)) <= MOST_BROAD_EXCEPTS, broad_excepts(checkout)
    assert len(crumbs(checkout)) <= MOST_CRUMBS
    folders = {m.path.parent for m in checkout.ours}
    assert [f for f in folders if not (checkout.root / f / "__init__.py").exists()] == []


def test_the_product_reads_at_first_sight(checkout):
    product = reading(checkout.ours)
    assert product.nodes <= MOST_NODES
    too_many = {name: n for name, n in product.per_1000.items() if n > MOST_PER_1000[name]}
    assert too_many == {}
    for package in PACKAGES:
        modules = [m for m in checkout.ours if m.package == package]
        assert reading(modules).density <= DENSEST, package


def test_every_package_that_may_be_imported_is_a_declared_dependency(checkout):
    assert set(OURS) == set(THEIRS) == set(PACKAGES)
    text = (checkout.root / "pyproject.toml").read_text(encoding="utf-8")
    declared = set(re.findall(r'^ {4}"([A-Za-z0-9._-]+)[>=<~;]', text, re.MULTILINE))
    assert {DISTRIBUTIONS.get(n, n) for names in THEIRS.values() for n in names} <= declared


def test_the_figures_on_the_page_of_the_architecture_are_those_of_the_checkout(checkout):
    text = (checkout.root / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert text == written(text), "run  python -m scripts.write_docs"
