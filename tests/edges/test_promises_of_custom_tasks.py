"""A mode promises a custom task only that for which it changes settings of the task."""

import pytest

from launcher.__main__ import main
from launcher.cli.parser import read
from launcher.compare import candidates
from tests.launcher.custom_tasks import BODY, HEAD, write
from tests.launcher.given import refused, resolved

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


def test_lite_promises_nothing_that_only_the_task_knows(task):
    assert promised(task(WIDTH), "lite") == set()
    full = SIZES.replace("large", "full") + LARGE.removeprefix(SIZES).replace("large", "full")
    assert promised(task(WIDTH, full, FRACTION), "lite") == set()


def test_other_modes_promise_no_memory_that_they_do_not_save(task):
    model = task(WIDTH)
    same = {"global_batch", "parameters"}
    assert promised(model, "fast") == promised(model, "ultra-fast") == {"total_time", "parameters"}
    assert promised(model, "conservative") == {"total_time", *same}
    assert promised(model, "resource-efficient") == {"device_peak", "samples_per_s", *same}


def test_a_user_keeps_the_own_promises(task):
    assert promised(task(WIDTH), "lite", "promise={epoch_time: {at_most: 0.5}}") == {"epoch_time"}


def test_a_promise_may_name_the_sizes_of_the_task(task):
    sized = task(WIDTH, LARGE)
    assert promised(sized, "fast", "promise={samples: {at_most: 1, sizes: [large]}}") > {"samples"}
    (error,) = refused("promise={samples: {at_most: 1, sizes: [lrge]}}", model=sized)
    assert (error.did_you_mean, error.allowed) == ("large", "tiny, large")


def test_lite_says_that_there_is_no_smaller_size(task):
    note = "mode lite: no smaller size (lite or tiny), so the whole model is trained"
    assert note in resolved(model=task(WIDTH), mode="lite").notes
    assert note in resolved(model=task(WIDTH, SIZES), mode="lite").notes
    assert note not in resolved(model=task(WIDTH, LARGE), mode="lite").notes
    assert note not in resolved(model=task(WIDTH, LARGE), mode="fast").notes
    assert note not in resolved(model="abr:tiny", mode="lite").notes  # the user named that size


def test_explain_says_why_and_compare_checks_the_others_only(task, capsys):
    model = task(FRACTION)
    assert main(["explain", "promise", "--model", model, "--lite"]) == 0
    text = capsys.readouterr().out
    assert "epoch_time: withdrawn by ds_configs/custom_task.yaml:" in text
    line = ["compare", "--model", model, "--modes", "default,fast", "--steps", "2"]
    fast = candidates.decide(read(line)).candidates[1]
    assert set(fast.promised()[0]) == {"total_time", "parameters"}
