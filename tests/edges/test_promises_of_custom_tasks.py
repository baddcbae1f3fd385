"""A mode promises a custom task only that for which it changes settings of the task."""

import pytest

from launcher.__main__ import main
from launcher.cli.parser import read
from launcher.compare import candidates
from launcher.config import presets
from tests.launcher.custom_tasks import BODY, HEAD, write
from tests.launcher.given import resolved

SIZES = '    sizes = {"tiny": {"model.width": 2}, "large": {"model.width": 9}}\n'
LARGE = SIZES + '    defaults = {"model.size": "large"}\n\n'
FRACTION = "    class Data(BaseModel):\n        fraction: float = 1.0\n\n"
WIDTH = "    class Model(BaseModel):\n        width: int = 4\n\n"


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def made(*parts):
        text = "".join(["class Line(CustomTask):\n", *parts, BODY])
        return f"{write(tmp_path, HEAD + text)}:Line"

    return made


def promised(model, mode, *sets):
    return set(resolved(*sets, model=model, mode=mode).promises)


def test_lite_promises_what_a_smaller_size_and_less_data_bring(task):
    assert promised(task(WIDTH), "lite") == set()
    assert promised(task(FRACTION), "lite") == set()
    assert promised(task(WIDTH, SIZES), "lite") == set()  # the default is the smallest
    sized, whole = task(WIDTH, LARGE), task(WIDTH, LARGE, FRACTION)
    assert promised(sized, "lite") == {"peak_memory", "device_peak"}
    assert promised(whole, "lite") == {"epoch_time", "peak_memory", "device_peak"}


def test_other_modes_promise_no_memory_that_they_do_not_save(task):
    model = task(WIDTH)
    same = {"global_batch", "parameters"}
    assert promised(model, "fast") == promised(model, "ultra-fast") == {"total_time", "parameters"}
    assert promised(model, "conservative") == {"total_time", *same}
    saved = {"peak_memory", "device_peak", "samples_per_s", *same}
    assert promised(model, "resource-efficient") == saved


def test_a_family_and_a_user_keep_their_promises(task):
    assert promised("abr:tiny", "lite") == {"epoch_time", "peak_memory", "device_peak"}
    assert promised(task(WIDTH), "lite", "promise={epoch_time: {at_most: 0.5}}") == {"epoch_time"}


def test_the_settings_that_promises_need_exist():
    for mode, node in presets.task_promises().items():
        needs = presets.node_value(node)
        assert mode in presets.modes() and needs.keys() <= presets.mode(mode).promise.keys()
        changed = str(presets.mode(mode).block.settings)
        assert all(key.rpartition(".")[2] in changed for keys in needs.values() for key in keys)


def test_explain_says_why_and_compare_checks_the_others_only(task, capsys):
    model = task(FRACTION)
    assert main(["explain", "promise", "--model", model, "--lite"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("promise = {}\n")
    assert "not promised: epoch_time (needs a change of model.size), peak_memory" in text
    assert main(["explain", "promise", "--model", model, "--fast"]) == 0
    assert "peak_memory (the mode changes nothing for it)" in capsys.readouterr().out
    line = ["compare", "--model", model, "--modes", "default,fast", "--steps", "2"]
    fast = candidates.decide(read(line)).candidates[1]
    assert set(fast.promises) == {"total_time", "parameters"}
