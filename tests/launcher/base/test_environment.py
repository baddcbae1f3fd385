"""Our packages are imported, never a user's of their names, and without garbage collection."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = 'raise SystemExit("a package of the user was imported")\n'


@pytest.fixture
def hostile_folder(tmp_path):
    """A working directory with packages named like those of Gearshift."""
    for name in ("models", "training", "engines", "slurm", "ds_configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(HOSTILE)
    return tmp_path


def python(folder, *args):
    return subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_our_packages_are_imported_after_launcher_and_those_of_the_user_stay(hostile_folder):
    assert python(hostile_folder, "-c", "import models").returncode == 1
    (hostile_folder / "mine").mkdir()
    (hostile_folder / "mine" / "__init__.py").touch()
    code = (
        "import launcher, importlib.resources, models.language.config, training.settings\n"
        "import models, training, engines, slurm, mine\n"
        "for module in (models, training, engines, slurm, mine): print(module.__path__[0])\n"
        "print(importlib.resources.files('ds_configs'))"
    )
    *ours, mine, ds_configs = python(hostile_folder, "-c", code).stdout.splitlines()
    assert ours == [str(ROOT / name) for name in ("models", "training", "engines", "slurm")]
    assert mine == str(hostile_folder / "mine") and str(ROOT / "ds_configs") in ds_configs


def test_a_shadowing_package_already_imported_is_an_error_with_a_fix(hostile_folder):
    (hostile_folder / "models" / "__init__.py").write_text("")
    done = python(hostile_folder, "-c", "import models, launcher")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        f"ImportError: the package 'models' of {hostile_folder / 'models'} is imported already, "
        "and this program has a package of that name; import launcher first, or rename yours"
    )


def test_a_spawned_process_of_a_script_imports_gearshift_packages(hostile_folder):
    script = hostile_folder / "mine.py"
    script.write_text(
        "import multiprocessing\n"
        "import launcher\n"
        "from training.duration import steps\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply_async(steps, ('50%', 1, 8)).get())\n"
    )
    done = python(hostile_folder, str(script))
    assert done.stdout.strip() == "4", done.stderr


ENDS = """
import atexit, gc, sys
from launcher import __main__
atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 1_000, file=sys.stderr))
sys.argv = ["gearshift", "list", "models"]
"""


@pytest.mark.parametrize(
    ("start", "is_frozen"),
    [("__main__.program()", True), ("__main__.main()", False)],
    ids=["own process", "called"],
)
def test_garbage_among_imports_is_searched_in_processes_of_others_only(
    hostile_folder, start, is_frozen
):
    done = python(hostile_folder, "-c", ENDS + start)
    assert done.returncode == 0 and "language" in done.stdout
    assert done.stderr.split() == ["True", str(is_frozen)]
