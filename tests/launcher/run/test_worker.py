"""What a rank sets in torch for the time of its run, and the settings that ranks compare before."""

import shutil
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import gearshift
from gearshift.launcher.base.diagnostics import SettingsError
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


def test_a_disk_without_room_for_a_checkpoint_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    run = partial(gearshift.train, "language:tiny", engine="local", console=False)
    with pytest.raises(SettingsError) as refused:
        run(settings={"train.max_steps": 1})
    [error] = refused.value.diagnostics
    assert error.key == "save.required" and "has 1000 B free" in error.message
    assert list(tmp_path.iterdir()) == []
