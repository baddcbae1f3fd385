"""Pipes, sockets, devices and links to nothing in a folder of data are refused at once."""

import importlib
import json
import os
import socket

import pytest
import torch

from gearshift.launcher.__main__ import main
from gearshift.launcher.config.schema import task_class
from gearshift.models.base import Context, DataError
from tests.ds_configs.tables import SHIPPED

KINDS = ("pipe", "socket", "device", "link", "loop")
NAMES = {"doc_translation": "imgs/a_1.png", "event_seg": "a.raw", "language": "a.txt"}
NAMES |= {"eeg_text": "a.edf", "abr": "a.csv"}
"""For each family, the name of a file that it reads."""


def make(path, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        folder = os.open(path.parent, os.O_RDONLY)  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
    else:
        path.symlink_to({"device": "/dev/zero", "link": "/nowhere", "loop": path.name}[kind])


@pytest.mark.parametrize("family", SHIPPED)
def test_every_family_refuses_them_before_anything_is_read(tmp_path, family):
    config = importlib.import_module(f"gearshift.models.{family}.config")
    context = Context(0, 0.2, None, torch.device("cpu"))
    for kind in KINDS if family == "language" else ("pipe", "link"):
        path = tmp_path / kind / NAMES[family]
        make(path, kind)
        data = config.Data(path=str(tmp_path / kind))
        task = task_class(family)(config.Model(size="tiny"), data, context)
        with pytest.raises(DataError) as error:
            task.setup()
        assert str(path) in error.value.message and error.value.hint


SETTINGS = {
    **dict.fromkeys(("data.path", "data.answers", "model.tokenizer", "model.start"), "language"),
    **dict.fromkeys(("data.texts", "data.channels"), "eeg_text"),
    "model.encoder": "abr",
}


@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
def test_every_setting_that_is_a_path_refuses_them_before_a_run(tmp_path, capsys, kind):
    path, folder = tmp_path / "there", tmp_path / "run"
    make(path, kind)
    # Of the others, a file that does not exist is an error of its reader.
    for key in ["data.path"] if kind == "link" else SETTINGS:
        words = ["--model", f"{SETTINGS[key]}:tiny", "--out", str(folder), "--set", f"{key}={path}"]
        assert main([*words, "--dry-run", "--json"]) == 2 and not folder.exists()
        [error] = json.loads(capsys.readouterr().out)["diagnostics"]
        assert (error["key"], error["value"], error["did_you_mean"]) == (key, str(path), None)
