"""A custom task is found by its module and class, and errors in it have their line."""

import sys

import pytest

from launcher.base.diagnostics import render
from launcher.config import custom_task
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write
from tests.launcher.given import refused, resolved


@pytest.fixture(autouse=True)
def search_path(here, monkeypatch):
    """A search path that is restored."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def error_text(model, *sets, **options):
    """The error text of a start with `--model`; the module's own name is replaced by NAME."""
    found = refused(*sets, model=model, **options)
    return render(found).replace(model.partition(":")[0], "NAME")


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


def test_a_missing_module_or_a_file_is_an_error(here):
    assert error_text("my_picture:Line") == (
        "error: module 'NAME' does not exist\n"
        "  where         --model NAME:Line\n"
        "  allowed       package.module:Class, where Python finds the module from here"
    )
    (here / "models").mkdir()
    write(here / "models", HEAD + LINE + BODY, "mine")
    assert "does not exist" in error_text("models.mine:Line")  # a package of this program
    for file, fix in (
        ("tasks/mine.py", "--model tasks.mine:Line"),
        ("/elsewhere/mine.py", "--model mine:Line --set model.folder=/elsewhere"),
    ):
        assert error_text(f"{file}:Line").endswith(f"\n  fix           {fix}")


def test_a_class_that_is_missing_or_lacks_methods_is_an_error(here):
    name = write(here, HEAD + LINE + BODY)
    assert error_text(f"{name}:Lien") == (
        "error: module 'NAME' has no class 'Lien'\n"
        "  where         --model NAME:Lien; NAME.py\n"
        "  allowed       Line\n"
        "  did you mean  NAME:Line\n"
        "  fix           --model NAME:Line"
    )
    name = write(here, HEAD + "class Line(CustomTask):\n    def build(self): ...\n")
    assert error_text(f"{name}:Line").splitlines()[:2] == [
        "error: class 'Line' is not a task: it lacks measure, samples",
        "  where         --model NAME:Line; NAME.py:6",
    ]
    name = write(here, "class Line:\n    goal = units = channels_last = None\n")
    lacks = "it lacks setup, build, data, collate, num_units, loss, metric"
    assert lacks in error_text(f"{name}:Line")


def test_a_module_that_raises_is_an_error_with_its_line(here):
    for text, line, expected in (
        ("x = 1\ny = x / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("x = 1\ndef f(:\n", 2, "SyntaxError"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
        ("\nimport no_such_library\n", 2, "No module named 'no_such_library'"),
        ("import sys\n\nsys.exit('bye')\n", 3, "SystemExit: bye"),
    ):
        message, where = error_text(f"{write(here, text)}:Line").splitlines()
        assert message.startswith("error: module 'NAME' cannot be imported: ")
        assert expected in message
        assert where == f"  where         --model NAME:Line; NAME.py:{line}"


def test_a_task_error_is_reported_with_all_others_and_without_other_model_errors(here):
    found = error_text("no_such_module:Line", "optim.rl=1", "model.width=3", mode="fsat")
    assert [line for line in found.splitlines() if line.startswith("error")] == [
        "error: module 'NAME' does not exist",
        "error: unknown mode 'fsat'",
        "error: unknown setting 'optim.rl'",
    ]
    (here / "mine.yaml").write_text("model:\n  family: no_such_module:Line\n")
    [found] = refused(model=None, configs=[here / "mine.yaml"])
    assert found.where == f"{here / 'mine.yaml'}:2 model.family"
    assert (found.key, found.value) == ("model.family", "no_such_module:Line")
