"""Paths are absolute in the files of a run, and two paths of one file are the same."""

import json
import re

import pytest

from gearshift.launcher.config import paths
from gearshift.launcher.config.render import render_origins, render_settings
from gearshift.launcher.config.schema import setting_infos
from gearshift.models.catalog import FAMILIES
from tests.launcher.given import resolved

NO_PATHS = {"data.mvsec_sequence", "data.target", "memory.activation_checkpointing"}
"""Texts whose description mentions a file or folder that they do not name."""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("a\n")
    (tmp_path / "link").symlink_to("notes.txt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_text_that_names_a_file_or_folder_is_a_path():
    for family in FAMILIES:
        for key, info in setting_infos(family).items():
            mentions = re.search(r"\b(file|folder|path|json)\b", info.description.lower())
            if info.type == "text" and mentions and key not in NO_PATHS:
                assert key in paths.PATHS, key


def test_a_typed_path_is_kept_absolute(here):
    run = resolved("engine.ds_config=null", "model.tokenizer=bytes", data="notes.txt")
    text = render_settings(run)
    assert f"  path: {here}/notes.txt\n" in text and "  tokenizer: bytes\n" in text
    origin = json.loads(render_origins(run))["data.path"]
    assert origin["value"] == f"{here}/notes.txt"
    assert origin["origin"] == "--data notes.txt"


def test_the_settings_of_a_run_name_the_same_data_from_every_folder(here, monkeypatch):
    url = ("download.files=[https://example.org/data.txt]", "download.fetch=true")
    (here / "run.yaml").write_text(render_settings(resolved(data="notes.txt")))
    (here / "download.yaml").write_text(render_settings(resolved(*url)))
    for folder in ("other", "downloads"):
        (here / folder).mkdir()
    (here / "downloads" / "data.txt").touch()
    monkeypatch.chdir(here / "other")
    again = resolved(model=None, configs=[here / "run.yaml"])
    assert again.settings.data.path == f"{here}/notes.txt"
    again = resolved(model=None, configs=[here / "download.yaml"])
    assert again.settings.data.path == f"{here}/downloads/data.txt"
    assert again.settings.download.folder == f"{here}/downloads"


def test_another_path_of_the_same_file_is_the_same_and_one_that_is_gone_has_moved(here):
    values = resolved().values
    for other in ("notes.txt", "./notes.txt", "link", f"{here}/link"):
        assert paths.is_same("data.path", f"{here}/notes.txt", other, values)
        assert not paths.is_same("data.path", f"{here}/other.txt", other, values)
        assert not paths.is_same("mode", f"{here}/notes.txt", other, values)
    assert paths.has_moved("data.path", f"{here}/gone.txt", "notes.txt", values)
    assert not paths.has_moved("data.path", f"{here}", "notes.txt", values)
    assert not paths.has_moved("data.path", f"{here}/gone.txt", "gone-too.txt", values)
    assert not paths.has_moved("data.path", "embedded:python", "notes.txt", values)
    several = ["embedded:python", f"{here}/notes.txt"]
    assert paths.is_same("data.path", several, ["embedded:python", "notes.txt"], values)
    assert not paths.is_same("data.path", several, [*reversed(several)], values)
    assert not paths.is_same("data.path", several, several[:1], values)
    moved = ["embedded:python", f"{here}/gone.txt"]
    assert paths.has_moved("data.path", moved, several, values)
    assert not paths.has_moved("data.path", several, moved, values)


LANGUAGE = ("data.path", "model.pretrained", "engine.ds_config", "download.folder")
IMPOSSIBLE = ["x" * 256, "~nosuchuser/a"]


@pytest.mark.parametrize("path", IMPOSSIBLE)
@pytest.mark.parametrize(
    ("line", "key", "where"),
    [
        *((f"--model language:tiny --set {key}={{}}", key, "--set") for key in LANGUAGE),
        ("--model eeg_text:tiny --set data.texts={}", "data.texts", "--set"),
        *((f"{flag} {{}}", None, flag) for flag in ("--model", "--config", "--out", "--from")),
        *((f"{flag} {{}}", None, flag) for flag in ("--resume", "explain --resume")),
        ("--data {}", "data.path", "--data"),
        ("resume {}", None, "resume"),
        ("watch . {}", None, "watch"),
        ("data check {}", None, "data"),
        ("predict . --input a --out {}", None, "--out"),
    ],
)
def test_a_path_that_no_file_can_have_is_an_error_at_its_place(here, said, line, key, where, path):
    before = sorted(here.iterdir())
    errors = said(*line.format(path).split(), "--json", code=2)["diagnostics"]
    assert any(e["key"] == key and where.split()[-1] in e["where"] for e in errors)
    assert sorted(here.iterdir()) == before
