"""A task template is written once, under an importable name, and trains unchanged."""

import json

import pytest

from tests.runs.conftest import Program


@pytest.mark.slow
def test_the_template_trains_unchanged(here):
    program = Program(here)
    done = program("new-task", "my_images")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "wrote my_images.py\ntrain it:  python -m launcher --model my_images:MyImages\n"
    )
    done = program("--model", "my_images:MyImages", "--epochs", "4", "--out", "run")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line["metrics"] for line in lines if line["kind"] == "eval"]
    assert evaluations[-1]["val_accuracy"] > 0.75  # two classes of points of similar size


def test_file_and_class_follow_pythons_naming(here, said):
    for name, module, model in (
        ("MyFineImages", "my_fine_images", "MyFineImages"),
        ("my_own_images", "my_own_images", "MyOwnImages"),
        ("x1", "x1", "X1"),
    ):
        assert said("new-task", name).split()[1] == f"{module}.py"
        text = (here / f"{module}.py").read_text()
        assert f"class {model}(CustomTask):" in text
        assert len(text.splitlines()) < 60 and max(map(len, text.splitlines())) <= 100


def test_a_file_that_exists_or_cannot_be_written_is_an_error(here, said):
    (here / "mine_too.py").write_text("precious")
    for words, where in (
        (["mine_too"], "command line: new-task mine_too"),
        (["my_images", "--out", "mine_too.py/there"], "--out mine_too.py/there"),
    ):
        [error] = said("new-task", *words, "--json", code=2)["diagnostics"]
        assert error["where"] == where
    assert [path.read_text() for path in here.iterdir()] == ["precious"]
