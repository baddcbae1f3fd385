"""What a rank sets in torch for the time of its run."""

import sys

import pytest
import torch

import launcher
from launcher.config import custom_task
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write

FLAG = "torch.backends.cudnn.benchmark"


@pytest.mark.parametrize(
    ("is_image", "settings", "tunes"),
    [(True, {}, True), (False, {}, False), (True, {"train.deterministic": True}, False)],
)
def test_cudnn_times_its_kernels_in_a_run_on_images(tmp_path, monkeypatch, is_image, settings, tunes):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    custom_task.add_search_folder(str(tmp_path))
    body = BODY.replace("        error", f"        SEEN.append({FLAG})\n        error", 1)
    images = f"    channels_last = {is_image}\n\n"
    name = write(tmp_path, HEAD + "SEEN = []\n\n" + LINE + images + body)
    launcher.train(model=f"{name}:Line", engine="local", settings=settings, console=False)
    assert set(sys.modules[name].SEEN) == {tunes}
    assert not torch.backends.cudnn.benchmark
