"""Data sets of the Hugging Face hub: their files, their commit, and which errors there are."""

import json
import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from gearshift.launcher.__main__ import main
from gearshift.launcher.config import hub, hub_data, paths
from gearshift.launcher.config.provenance import RESUMED_LAYER, Origin, Setting
from gearshift.launcher.config.resolve import fetch_data
from gearshift.models.catalog import data_folder, local_path
from tests.launcher.given import errors_of, refused, resolved, set_torchrun
from tests.launcher.hub import COMMIT, NEWER, forget, serving_hub

NAME = "hf:org/chats"
PINNED = f"{NAME}@{COMMIT}:default:train"
ROWS = [{"prompt": f"question {number}", "completion": "yes"} for number in range(200)]
CARD = """---
license: mit
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - {split: test, path: [main/test-*]}
- config_name: socratic
  data_files: socratic/*.jsonl
---
# Chats
"""


def write(folder, *names, rows=ROWS):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving_hub(tmp_path / "home", monkeypatch) as running:
        yield running


@pytest.fixture
def chats(server, tmp_path):
    """A data set of one file a split, and what belongs to other programs."""
    folder = write(tmp_path / "chats", "data/train-00000-of-00001.jsonl", "data/test.jsonl")
    for name in ("chats.py", "weights.bin", "README.md", ".gitattributes"):
        (folder / name).write_text("print('no code of it runs')")
    server.add("org/chats", folder, kind="datasets")
    return folder


@pytest.fixture
def configured(server, tmp_path):
    """A data set with two configs, by its card."""
    names = ("main/train-0.jsonl", "main/test-0.jsonl", "main/extra.jsonl", "socratic/a.jsonl")
    folder = write(tmp_path / "configured", *names)
    (folder / "README.md").write_text(CARD)
    server.add("org/configured", folder, kind="datasets")


def pin(name, may_download=True):
    forget()
    return hub_data.pin(name, may_download=may_download)


def test_settings_name_the_commit_and_no_data_is_downloaded_before_the_run(server, chats):
    run = resolved(model="language:tiny", data=NAME)
    assert run.settings.data.path == PINNED and server.sent == {"README.md"}
    assert paths.kept_values(run.values)["data.path"] == PINNED
    assert f"data.path: {PINNED}, not downloaded yet" in run.notes
    fetch_data(run.values)
    assert server.sent == {"README.md", "train-00000-of-00001.jsonl"}
    data = chats / "data" / "train-00000-of-00001.jsonl"
    assert Path(local_path(PINNED)).read_bytes() == data.read_bytes()
    forget()
    assert any("in the cache" in note for note in resolved(model="language", data=NAME).notes)


def test_each_of_several_sources_has_its_commit_or_the_line_to_type(
    server, chats, configured, here
):
    other = "hf:org/configured:main:test"
    write(here, "mine.jsonl")
    sources = [NAME, "mine.jsonl", other]
    run = resolved(f"data.path={json.dumps(sources)}", model="language:tiny")
    pinned = [PINNED, "mine.jsonl", f"hf:org/configured@{COMMIT}:main:test"]
    assert run.settings.data.path == pinned
    fetch_data(run.values)
    assert server.sent >= {"train-00000-of-00001.jsonl", "test-0.jsonl"}
    assert paths.is_same("data.path", pinned, sources, run.values)
    sources[2] = "hf:org/configured:main:tset"
    (error,) = refused(f"data.path={json.dumps(sources)}", model="language")
    assert error.key == "data.path"
    assert error.fix == f"--data {NAME} --data mine.jsonl --data {other}"


def test_a_plan_downloads_no_data_and_names_the_command_that_does(server, chats):
    run = resolved(model="language:tiny", data=NAME)
    (error,) = errors_of(fetch_data, run.values, may_download=False)
    assert (error.key, error.where) == ("data.path", f"--data {NAME}")
    assert error.fix == f"python -m launcher data fetch --set data.path={PINNED}"
    assert main(error.fix.split()[3:]) == 0
    fetch_data(run.values, may_download=False)


def test_the_card_declares_configs_and_splits(server, configured):
    head = f"hf:org/configured@{COMMIT}"
    assert pin("hf:org/configured:main") == f"{head}:main:train"
    assert pin("hf:org/configured@main:socratic:train") == f"{head}:socratic:train"
    name = pin("hf:org/configured:main:test")
    hub_data.fetch(name, may_download=True)
    assert Path(local_path(name)).relative_to(data_folder(name)) == Path("main/test-0.jsonl")


@pytest.mark.parametrize(
    ("parts", "nearest"),
    [("", ":main:train"), (":train", ":main:train"), (":mian:test", ":main:test")],
)
def test_several_configs_are_listed_with_the_line_to_type(server, configured, parts, nearest):
    (error,) = refused(data=f"hf:org/configured{parts}", model="language")
    assert error.key == "data.path" and error.where == f"--data hf:org/configured{parts}"
    assert error.allowed.split(", ") == [
        f"hf:org/configured:{each}" for each in ("main:train", "main:test", "socratic:train")
    ]
    assert error.fix == f"--data hf:org/configured{nearest}"


@pytest.mark.parametrize(
    ("names", "part", "expected"),
    [
        (["train.jsonl", "validation.csv"], "", ["train.jsonl"]),
        (["data/train_sft-00000-of-00002.jsonl", "data/train.jsonl"], ":train_sft", None),
        (["en/train/0.json", "en/test/1.json"], "", ["en/train/0.json"]),
        (["en/train.csv", "en/dev.csv"], ":validation", ["en/dev.csv"]),
        (["a-training.json.gz", "a.valid.json.gz"], "", ["a-training.json.gz"]),
    ],
)
def test_without_a_card_names_tell_configs_and_splits(server, tmp_path, names, part, expected):
    server.add("org/named", write(tmp_path / "named", *names), kind="datasets")
    name = pin(f"hf:org/named{part}")
    hub_data.fetch(name, may_download=True)
    linked = [path for path in data_folder(name).rglob("*") if path.is_file()]
    relative = sorted(path.relative_to(data_folder(name)).as_posix() for path in linked)
    assert relative == (expected or names[:1])
    assert all(path.samefile(Path(local_path(name))) for path in linked)


def test_several_files_are_one_folder(server, tmp_path):
    names = ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"]
    server.add("org/shards", write(tmp_path / "shards", *names), kind="datasets")
    name = pin("hf:org/shards")
    hub_data.fetch(name, may_download=True)
    folder = Path(local_path(name))
    assert sorted(os.listdir(folder / "data")) == [name.partition("/")[2] for name in names]


def test_a_download_that_breaks_continues_within_the_file(server, chats, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what is kept, else 10 MB
    file = "data/train-00000-of-00001.jsonl"
    server.cut("org/chats", file, 3000)
    hub_data.fetch(pin(NAME), may_download=True)
    assert server.ranges("train-00000-of-00001.jsonl") == ["bytes=2048-"]
    assert Path(local_path(PINNED)).read_bytes() == (chats / file).read_bytes()


def test_without_a_network_the_cache_is_used_if_it_is_whole(server, chats):
    hub_data.fetch(pin(NAME), may_download=True)
    server.stop()
    for name in (NAME, f"{NAME}:train", PINNED):
        assert pin(name) == PINNED and pin(name, may_download=False) == PINNED
    (error,) = refused(data=f"{NAME}:test", model="language")
    assert error.fix.startswith("--data ")
    (error,) = refused(data="hf:org/other", model="language")
    assert error.fix == "python -m launcher data fetch --set data.path=hf:org/other"
    Path(local_path(PINNED)).resolve().unlink()
    assert not hub_data.is_cached(PINNED)
    (error,) = errors_of(pin, PINNED, may_download=False)
    assert "data fetch" in error.fix


def test_only_the_command_line_asks_for_a_download(server, chats, tmp_path):
    file = tmp_path / "shared.yaml"
    file.write_text(f"data: {{path: '{NAME}'}}\n")
    (error,) = refused(configs=[file], model="language:tiny")
    assert error.where == f"{file}:1 data.path" and "data fetch" in error.fix
    assert not server.logins
    run = resolved("download.fetch=true", configs=[file], model="language:tiny")
    fetch_data(run.values)
    assert resolved(configs=[file], model="language:tiny").settings.data.path == PINNED


def test_a_rank_of_torchrun_downloads_nothing(server, chats, monkeypatch):
    set_torchrun(monkeypatch, 1)
    (error,) = errors_of(pin, NAME)
    assert not server.logins and "data fetch" in error.fix


def test_a_resumed_run_keeps_its_commit_where_the_branch_has_moved(server, chats):
    origin = Origin(RESUMED_LAYER, "settings.yaml")
    for text, expected in (
        (NAME, PINNED),
        (f"{NAME}:train", PINNED),
        (f"{NAME}:test", f"{NAME}:test"),
        (f"{NAME}@v2", f"{NAME}@v2"),
    ):
        values = {"data.path": Setting(text, origin), "model.family": Setting("language", origin)}
        paths.keep_recorded(values, {"data.path": PINNED})
        assert values["data.path"].value == expected
    server.add("org/chats", chats, NEWER, kind="datasets")
    assert pin(NAME) == PINNED.replace(COMMIT, NEWER)
    assert pin(PINNED) == PINNED


@pytest.mark.parametrize(
    ("status", "code", "fix"),
    [
        (404, "RepoNotFound", "hf auth login"),
        (401, "RepoNotFound", "hf auth login"),
        (401, "GatedRepo", "hf auth login"),
        (403, "GatedRepo", "hf auth login"),
        (404, "RevisionNotFound", "--data hf:org/other"),
        (503, None, "python -m launcher data fetch --set data.path=hf:org/other"),
    ],
)
def test_what_the_hub_refuses_is_one_error(server, said, status, code, fix):
    server.refuse("org/other", status, code, kind="datasets")
    (error,) = refused(data="hf:org/other", model="language")
    assert (error.key, error.where, error.fix) == ("data.path", "--data hf:org/other", fix)
    assert error.hint


def test_the_rate_limit_is_waited_for_and_then_an_error(server, chats):
    server.refuse("org/chats", 429, None, kind="datasets", times=2)
    assert pin(NAME) == PINNED
    server.refuse("org/busy", 429, None, kind="datasets")
    (error,) = errors_of(pin, "hf:org/busy")
    assert error.fix == "hf auth login"


def test_no_name_and_data_that_only_code_reads_are_errors(server, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "loader.py").write_text("raise SystemExit")
    server.add("org/code", tmp_path / "code", kind="datasets")
    (error,) = refused(data="hf:org/code", model="language")
    assert "refs/convert/parquet" in error.hint
    for name in ("hf:a/b/c", f"{NAME}@", f"{NAME}:a:b:c"):
        (error,) = refused(data=name, model="language")
        assert error.allowed == hub.DATA_FORM


def test_a_name_without_hf_is_a_path_with_a_fix(here):
    page = "https://huggingface.co/datasets/org/chats"
    for name in ("org/chats", page):
        (error,) = refused(data=name, model="language")
        assert error.fix == "--data hf:org/chats"
