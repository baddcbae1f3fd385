"""Pipes, sockets, devices and links to nothing in a folder of data are refused at once."""

import importlib
import os
import socket

import pytest
import torch

from launcher.__main__ import main
from launcher.base.diagnostics import SettingsError
from launcher.config.schema import task_class
from launcher.report.data_check import find_families
from models.base import Context, DataError
from models.catalog import FAMILIES
from models.common import data_files
from models.doc_translation import prediction
from models.event_seg import prediction as event_prediction
from models.event_seg.readers.hdf5 import Masks

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


def problem(kind):
    is_link = kind in ("link", "loop")
    return "is a link to a file that does not exist" if is_link else "is not a regular file"


def place(folder, kind, name):
    """A file of the kind in a folder of its own."""
    path = folder / kind / name
    make(path, kind)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_refuses_them_before_anything_is_read(tmp_path, family):
    config = importlib.import_module(f"models.{family}.config")
    context = Context(0, 0.2, None, torch.device("cpu"))
    for kind in KINDS if family == "language" else ("pipe", "link"):
        path = place(tmp_path, kind, NAMES[family])
        data = config.Data(path=str(tmp_path / kind))
        task = task_class(family)(config.Model(size="tiny"), data, context)
        with pytest.raises(DataError, match=problem(kind)) as error:
            task.setup()
        assert str(path) in error.value.message and error.value.fix


@pytest.mark.parametrize("family", [None, "event_seg", "language", "eeg_text", "abr"])
def test_data_check_refuses_them(tmp_path, family):
    for kind in ("socket", "loop"):
        place(tmp_path, kind, f"deep/{NAMES[family or 'language']}")
        with pytest.raises(SettingsError, match=problem(kind)):
            find_families(str(tmp_path / kind), family, "data check")


@pytest.mark.parametrize("kind", KINDS)
def test_predict_refuses_them(tmp_path, kind):
    make(tmp_path / "a.png", kind)
    with pytest.raises(DataError, match=problem(kind)):
        prediction.read(tmp_path)
    trained = event_prediction.TrainedOnEvents(33, (4, 4), True)
    found = event_prediction.windows(tmp_path, trained, None, 1, torch.device("cpu"))
    with pytest.raises(DataError, match=problem(kind)):
        next(found)
    if kind == "pipe":
        with pytest.raises(DataError, match="is not a regular file"):
            Masks(tmp_path / "a.png")


def test_a_link_to_a_file_or_a_folder_is_data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b").mkdir()
    (tmp_path / "a").touch()
    (tmp_path / "data" / "c").symlink_to(tmp_path / "a")
    (tmp_path / "data" / "d").symlink_to(tmp_path / "data" / "b")
    walked = list(data_files.walk(tmp_path / "data"))
    assert walked == [(tmp_path / "data", ["b", "d"], ["c"]), (tmp_path / "data" / "b", [], [])]


def test_hidden_ones_are_left_out(tmp_path):
    make(tmp_path / ".lock", "socket")
    make(tmp_path / ".git" / "pipe", "pipe")
    assert data_files.files(tmp_path) == []


SETTINGS = {
    **dict.fromkeys(("data.path", "data.answers", "model.tokenizer", "model.start"), "language"),
    **dict.fromkeys(("data.texts", "data.channels"), "eeg_text"),
    **{"data.font": "doc_translation", "model.encoder": "abr"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_that_is_a_path_refuses_them_before_a_run(tmp_path, capsys, kind):
    path, folder = tmp_path / "there", tmp_path / "run"
    make(path, kind)
    # Of the others, a file that does not exist is an error of its reader.
    for key in ["data.path"] if kind in ("link", "loop") else SETTINGS:
        model = ["--model", f"{SETTINGS[key]}:tiny", "--out", str(folder)]
        assert main([*model, "--set", f"{key}={path}", "--dry-run"]) == 2
        err = capsys.readouterr().err
        assert f"error: {key} '{path}' {problem(kind)}" in err
        assert "did you mean" not in err and not folder.exists()
