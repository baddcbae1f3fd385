"""A mode promises a custom task only that for which it changes settings of the task."""

import pytest

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
