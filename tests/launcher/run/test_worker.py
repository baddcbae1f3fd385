"""What a rank sets in torch for the time of its run, and the settings that ranks compare before."""

import sys
from dataclasses import replace

import pytest
import torch

import gearshift
from gearshift.launcher.config import custom_task
from gearshift.launcher.run.worker import consistency_facts
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write
from tests.launcher.given import LAPTOP, resolved

FLAG = "torch.backends.cudnn.benchmark"


@pytest.mark.parametrize(
    ("is_image", "settings", "tunes"),
    [(True, {}, True), (False, {}, False), (True, {"train.deterministic": True}, False)],
)
def test_cudnn_times_its_kernels_in_a_run_on_images(
    tmp_path, monkeypatch, is_image, settings, tunes
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    custom_task.add_search_folder(str(tmp_path))
    body = BODY.replace("        error", f"        SEEN.append({FLAG})\n        error", 1)
    images = f"    channels_last = {is_image}\n\n"
    name = write(tmp_path, HEAD + "SEEN = []\n\n" + LINE + images + body)
    gearshift.train(model=f"{name}:Line", engine="local", settings=settings, console=False)
    assert set(sys.modules[name].SEEN) == {tunes}
    assert not torch.backends.cudnn.benchmark


def test_settings_are_compared_except_those_of_one_machine():
    larger = replace(LAPTOP, cores=64, ram_bytes=2**40)
    first = consistency_facts(resolved("loader.workers=2", world_size=2, lr="1e-3"))
    second = consistency_facts(
        resolved("loader.workers=2", world_size=2, lr="2e-3", machine=larger)
    )
    assert {name for name in first if first[name] != second[name]} == {"optim.lr"}
