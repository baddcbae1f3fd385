"""Models of the Hugging Face hub: what is downloaded, when, and which errors there are."""

import json
import os
from dataclasses import replace

import pytest
from huggingface_hub import constants

from gearshift.launcher.__main__ import main
from gearshift.launcher.config import hub, paths
from gearshift.launcher.config.resolve import fetch_weights
from gearshift.launcher.config.schema import PRETRAINED, model_name
from gearshift.models.catalog import folder_of, name_of
from tests.launcher.given import errors_of, refused, resolved, set_torchrun
from tests.launcher.hub import COMMIT, NEWER, serving_hub

NAME, PINNED = "hf:org/tiny", f"hf:org/tiny@{COMMIT}"
TEXTS = {"config.json", "tokenizer.json", "merges.txt"}


@pytest.fixture
def model(tmp_path):
    """The files of a model, some of them for other programs."""
    folder = tmp_path / "model"
    (folder / "original").mkdir(parents=True)
    config = {"model_type": "llama", "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "merges.txt", "pytorch_model.bin", "model.safetensors"):
        (folder / name).write_text(name)
    (folder / "original" / "consolidated.safetensors").write_text("again")
    return folder


@pytest.fixture
def server(tmp_path, model, monkeypatch):
    with serving_hub(tmp_path / "home", monkeypatch) as running:
        running.add("org/tiny", model)
        yield running


def error_of(name, **options):
    (error,) = errors_of(hub.fetch, name, **options)
    return error


def test_settings_name_the_commit_and_need_no_weights(server):
    run = resolved(f"{PRETRAINED}={NAME}", model="language")
    assert run.settings.model.pretrained == PINNED and server.sent == TEXTS
    assert run.settings.data.seq_len == 64  # of its config.json
    assert paths.kept_values(run.values)[PRETRAINED] == PINNED
    assert f"{PRETRAINED}: {PINNED}, the commit of {NAME}" in run.notes
    assert model_name(run.settings.model) == "language:tiny" == f"language:{name_of(folder(run))}"
    fetch_weights(run.values)
    assert server.sent == {*TEXTS, "model.safetensors"}
    assert {path.name for path in folder(run).iterdir()} == server.sent


def folder(run):
    return folder_of(run.settings.model.pretrained)


def test_a_tag_and_a_commit_can_be_named_and_the_token_is_sent(server, model, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.add("org/tiny", model, NEWER, "v2")
    assert hub.fetch(f"{NAME}@v2") == f"{NAME}@{NEWER}"
    assert hub.fetch(f"{NAME}@{COMMIT}") == PINNED
    assert server.logins == {"Bearer hf_secret"}


def test_a_resumed_run_keeps_its_commit_where_the_model_is_named_again(server):
    values = dict(resolved(f"{PRETRAINED}={PINNED}", model="language").values)
    typed = values[PRETRAINED]
    for text, kept in ((NAME, PINNED), (f"{NAME}@v2", f"{NAME}@v2"), ("hf:org/t", "hf:org/t")):
        values[PRETRAINED] = replace(typed, value=text)
        paths.keep_recorded(values, {PRETRAINED: PINNED})
        assert values[PRETRAINED].value == kept


def test_data_fetch_downloads_all_that_is_read(server, capsys):
    assert main(["data", "fetch", NAME, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"model": PINNED, "path": str(folder_of(PINNED))}
    assert printed.err == f"{NAME}: downloading to the cache of the hub\n"
    assert server.sent == {*TEXTS, "model.safetensors"}


@pytest.mark.parametrize(
    ("status", "code", "fix"),
    [
        (404, "RepoNotFound", "hf auth login"),
        (401, "RepoNotFound", "hf auth login"),
        (401, "GatedRepo", "hf auth login"),
        (429, None, "hf auth login"),
        (404, "RevisionNotFound", f"--set {PRETRAINED}=hf:org/other"),
        (503, None, "python -m launcher data fetch hf:org/other"),
    ],
)
def test_what_the_hub_refuses_is_one_error(server, status, code, fix):
    server.refuse("org/other", status, code)
    (error,) = refused(f"{PRETRAINED}=hf:org/other", model="language")
    assert error.key == PRETRAINED and error.where == f"--set {PRETRAINED}=hf:org/other"
    assert error.fix == fix and error.hint


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("Qwen/Qwen3-0.6", "Qwen/Qwen3-0.6B"),
        ("meta-lama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("org/tinny", "org/tiny"),  # of the cache
        ("Qwen/Qwen3-7B", None),  # another size is another model
        ("Qwen/Qwen3-0.6B-Chat", None),
    ],
)
def test_a_misspelled_name_has_the_nearest_that_is_known(server, typed, nearest):
    hub.fetch(NAME)
    server.refuse(typed, 404, "RepoNotFound")
    (error,) = refused(f"{PRETRAINED}=hf:{typed}", model="language")
    assert error.did_you_mean == (nearest and f"hf:{nearest}")
    assert error.fix == (f"--set {PRETRAINED}=hf:{nearest}" if nearest else "hf auth login")


def test_a_gated_name_is_not_misspelled(server):
    server.refuse("Qwen/Qwen3-0.6B", 401, "GatedRepo")
    error = error_of("hf:Qwen/Qwen3-0.6B")
    assert error.did_you_mean is None and error.fix == "hf auth login"


def test_without_a_network_only_the_cache_is_used(server, monkeypatch):
    hub.fetch(NAME, weights=True)
    server.stop()
    hub.fetch.cache_clear()
    assert hub.fetch(NAME, weights=True) == PINNED
    error = error_of("hf:org/other")
    assert error.fix == "python -m launcher data fetch hf:org/other"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert error_of("hf:org/other").fix == error.fix


def test_a_rank_of_torchrun_downloads_nothing(server, monkeypatch):
    set_torchrun(monkeypatch, 1)
    error = error_of(NAME)
    assert not server.logins
    assert error.fix == f"python -m launcher data fetch {NAME}"
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    hub.fetch(NAME)
    set_torchrun(monkeypatch, 1)
    hub.fetch.cache_clear()
    assert hub.fetch(NAME) == PINNED
    assert error_of(NAME, weights=True).fix == error.fix


def test_a_model_without_safetensors_is_refused(server, model):
    (model / "model.safetensors").unlink()
    server.add("org/pickle", model, NEWER)
    assert "*.safetensors" in error_of("hf:org/pickle", weights=True).message


def test_no_name_is_an_error_before_any_request(server):
    for name in ("hf:a/b/c", f"{NAME}@"):
        assert error_of(name).value == name
    assert main(["data", "fetch", "facebook/bart-base"]) == 2
    assert not server.logins


def test_a_cache_that_cannot_be_written_is_an_error(server, monkeypatch):
    blocked = server.cache.parent / "file"
    blocked.parent.mkdir()
    blocked.write_text("no folder")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", os.fspath(blocked))
    assert str(blocked) in error_of(NAME).message
