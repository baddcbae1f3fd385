"""What `import gearshift` gives, and what it costs."""

from pathlib import Path

import gearshift
from tests.launcher.given import ROOT, python

TRAINING = {"train", "open_run", "Run", "RunError", "SettingsError"}
TASKS = {
    *(
        "Context",
        "CustomTask",
        "DataError",
        "Goal",
        "InitialWeights",
        "Metric",
        "Picture",
        "Prediction",
    ),
    *("Predictions", "Stage", "Task", "few_samples"),
    *("GeneratesText", "Message", "Prompt", "Sampling"),
}
LIGHT = """
import sys
import gearshift
ours = {name for name in sys.modules if name.partition(".")[0] in ("gearshift", "launcher")}
print(sorted(ours), *sorted({"torch", "pydantic", "numpy", "yaml"} & set(sys.modules)))
"""
FIND = """
from importlib.util import find_spec
for name in ("models", "training", "engines", "slurm", "ds_configs", "tests", "benchmarks"):
    spec = find_spec(name)
    print(spec and (spec.origin or next(iter(spec.submodule_search_locations))))
"""
"""Where Python finds these names; another library may have one of them."""


def test_its_names_are_those_of_the_list_and_each_is_there():
    assert set(gearshift.__all__) == TRAINING | TASKS
    assert all(getattr(gearshift, name).__name__ == name for name in gearshift.__all__)
    assert not hasattr(gearshift, "anything")


def test_the_import_loads_nothing_but_itself(tmp_path):
    done = python("-c", LIGHT, folder=tmp_path)
    assert done.stdout == "['gearshift']\n", done.stderr


def test_an_old_import_ends_with_a_line_that_has_the_new_name(tmp_path):
    for program in ("import launcher; launcher.train", "from launcher import train"):
        done = python("-c", program, folder=tmp_path)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].endswith("is gearshift.train: import gearshift")


def test_both_names_of_the_program_print_the_same_from_any_folder(tmp_path):
    shown = [python("-m", name, "list", folder=tmp_path) for name in ("launcher", "gearshift")]
    assert {done.returncode for done in shown} == {0}
    assert shown[0].stdout == shown[1].stdout


def test_nothing_else_can_be_found(tmp_path):
    found = python("-c", FIND, folder=tmp_path).stdout.splitlines()
    assert len(found) == 7
    assert [
        place for place in found if Path(place).is_relative_to(ROOT) and ".venv" not in place
    ] == []
