"""A package of the user with the name of one of ours, imported before it, is named."""

from tests.launcher.given import python


def test_a_shadowing_package_already_imported_is_an_error_with_a_fix(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    done = python("-c", "import models, launcher", folder=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ") and str(tmp_path / "models") in last
