"""Our packages are imported, never a user's of their names, and without garbage collection."""

import pytest

from tests.launcher.given import ROOT, python

HOSTILE = 'raise SystemExit("a package of the user was imported")\n'


@pytest.fixture
def hostile_folder(tmp_path):
    """A working directory with packages named like those of Gearshift."""
    for name in ("models", "training", "engines", "slurm", "ds_configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(HOSTILE)
    return tmp_path


def test_our_packages_are_imported_after_launcher_and_those_of_the_user_stay(hostile_folder):
    assert python("-c", "import models", folder=hostile_folder).returncode == 1
    (hostile_folder / "mine").mkdir()
    (hostile_folder / "mine" / "__init__.py").touch()
    code = """
import launcher, importlib.resources, models.language.config, training.settings
import models, training, engines, slurm, mine
for module in (models, training, engines, slurm, mine): print(module.__path__[0])
print(importlib.resources.files("ds_configs"))
"""
    *ours, mine, ds_configs = python("-c", code, folder=hostile_folder).stdout.splitlines()
    assert ours == [str(ROOT / name) for name in ("models", "training", "engines", "slurm")]
    assert mine == str(hostile_folder / "mine") and str(ROOT / "ds_configs") in ds_configs


def test_a_shadowing_package_already_imported_is_an_error_with_a_fix(hostile_folder):
    (hostile_folder / "models" / "__init__.py").write_text("")
    done = python("-c", "import models, launcher", folder=hostile_folder)
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
    done = python(script, folder=hostile_folder)
    assert done.stdout.strip() == "4", done.stderr


ENDS = """
import atexit, gc, sys
from launcher import __main__
atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 1_000, file=sys.stderr))
sys.argv = ["gearshift", "list", "models"]
"""


def test_garbage_among_imports_is_searched_in_processes_of_others_only(hostile_folder):
    for start, is_frozen in (("program", "True"), ("main", "False")):
        done = python("-c", f"{ENDS}__main__.{start}()", folder=hostile_folder)
        assert done.returncode == 0 and "language" in done.stdout
        assert done.stderr.split() == ["True", is_frozen], start
