"""A project of a user may have folders of any name beside our program; .ci/wheel tries them with the wheel."""

import os
import sys

import pytest

from tests.launcher.given import SOURCE
from tests.packaging.projects import PROJECTS, use, write


@pytest.mark.slow
@pytest.mark.parametrize("name", PROJECTS)
def test_a_project_finds_its_own_modules_in_its_script_and_its_task(tmp_path, name):
    write(tmp_path, name)
    use(sys.executable, tmp_path, {**os.environ, "PYTHONPATH": str(SOURCE)})
