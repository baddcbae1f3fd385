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
