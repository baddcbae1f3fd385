"""A custom task is found by its module and class, and errors in it have their line."""

import pytest

from gearshift.launcher.config import custom_task
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write
from tests.launcher.given import refused, resolved

pytestmark = pytest.mark.usefixtures("here", "search_path")


def test_a_module_in_the_working_directory_or_a_package_is_found_with_its_folder(here):
    (here / "packaged_tasks").mkdir()
    write(here / "packaged_tasks", HEAD + LINE + BODY, "inner")
    for name in (write(here, HEAD + LINE + BODY), "packaged_tasks.inner"):
        assert custom_task.load_task_class(f"{name}:Line").__name__ == "Line"
        assert custom_task.task_folder(f"{name}:Line") == str(here)
    assert custom_task.task_folder("pytest:Line") is None  # installed


def test_model_folder_is_searched_first(here):
    name = write(here, "raise SystemExit('the wrong one')")
    (here / "there").mkdir()
    write(here / "there", HEAD + LINE + BODY, name)
    run = resolved("model.folder=there", model=f"{name}:Line")
    assert run.settings.model.folder == str(here / "there")
    assert run.values["model.folder"].origin.where == "--set model.folder=there"


def test_two_tasks_of_one_name_in_one_process_are_distinct(here):
    for folder in ("one", "two"):
        (here / folder).mkdir()
    name = write(here / "one", HEAD + LINE + BODY)
    write(here / "two", HEAD + LINE + BODY, name)
    assert resolved("model.folder=one", model=f"{name}:Line")
    (error,) = refused("model.folder=two", model=f"{name}:Line")
    assert (error.key, error.where) == ("model.folder", "--set model.folder=two")
    assert str(here / "one") in error.message


def test_a_file_is_an_error_that_says_how_it_is_named(here):
    for file in ("tasks/mine.py", "/elsewhere/mine.py", "../mine.py"):
        [error] = refused(model=f"{file}:Line")
        assert "--set model.folder=DIR" in error.allowed


def test_a_class_that_lacks_methods_is_an_error_that_names_them(here):
    name = write(here, HEAD + "class Line(CustomTask):\n    def build(self): ...\n")
    [error] = refused(model=f"{name}:Line")
    assert error.message.endswith(" measure, samples") and error.where.endswith(f"{name}.py:6")
    name = write(here, "class Line:\n    goal = units = channels_last = None\n")
    [error] = refused(model=f"{name}:Line")
    assert " setup, build, data, collate, num_units, loss, metric" in error.message


def test_a_module_that_raises_is_an_error_with_its_line(here):
    for text, line, expected in (
        ("x = 1\ny = x / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("x = 1\ndef f(:\n", 2, "SyntaxError"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
        ("import sys\n\nsys.exit('bye')\n", 3, "SystemExit: bye"),
    ):
        [error] = refused(model=f"{write(here, text)}:Line")
        assert expected in error.message and error.where.endswith(f".py:{line}")


def test_a_task_error_is_reported_with_all_others_and_without_other_model_errors(here):
    found = refused("optim.rl=1", "model.width=3", model="no_such_module:Line", mode="fsat")
    assert [error.key for error in found] == ["model.family", "mode", "optim.rl"]
    (here / "mine.yaml").write_text("model:\n  family: no_such_module:Line\n")
    [found] = refused(model=None, configs=[here / "mine.yaml"])
    assert (found.key, found.where) == ("model.family", f"{here / 'mine.yaml'}:2 model.family")
