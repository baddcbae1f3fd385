"""Declared files are downloaded completely, once, and again after a broken connection."""

import hashlib
import os
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import pytest
import requests

from gearshift.launcher.base.diagnostics import FetchError, SettingsError
from gearshift.launcher.config.feature_checks import targets
from gearshift.launcher.config.schema import Download
from gearshift.launcher.download.fetch import _url, check_redirect
from tests.launcher.download.server import BODY, Response
from tests.launcher.given import errors_of

SHA256 = hashlib.sha256(BODY).hexdigest()
PATH = Path("downloads/data.bin")
HALF = len(BODY) // 2


def files_left():
    """All files below downloads/, without locks and records."""
    files = (p for p in Path("downloads").rglob("*") if p.is_file())
    return sorted(p.name for p in files if p.suffix not in (".lock", ".json"))


def test_a_file_is_downloaded_and_its_checksum_printed(server, get):
    [found] = get(server.on("/set/data.bin"))
    assert (found.path, found.is_new) == (PATH, True)
    assert (found.sha256, found.size) == (SHA256, len(BODY))
    assert PATH.read_bytes() == BODY
    assert get.printed[-1].endswith(f"sha256: {SHA256}")
    assert files_left() == ["data.bin"]


def test_an_existing_file_is_not_downloaded_again(server, get):
    url = server.on("/data.bin")
    get({"url": url, "sha256": SHA256.upper()})
    [found] = get({"url": url, "sha256": SHA256})
    assert not found.is_new and len(get.printed) == 1
    get(url)  # recognized by its URL
    get({"url": "https://elsewhere.invalid/data.bin", "sha256": SHA256})  # or by its checksum
    os.utime(PATH, (1, 1))  # which alone is no change
    assert not get(url)[0].is_new and len(server.requests) == 1
    PATH.rename("kept")
    assert get(url)[0].is_new  # recorded but missing: killed before the move
    assert len(server.requests) == 2


@pytest.mark.parametrize("chunked", [False, True])
def test_a_broken_transfer_starts_again_and_leaves_no_part(server, get, chunked):
    url = server.on("/data.bin", Response(cut=HALF, chunked=chunked), Response(chunked=chunked))
    get(url)
    assert PATH.read_bytes() == BODY and len(server.requests) == 2
    PATH.unlink()
    get.error(server.on("/data.bin", Response(cut=HALF)), kind=FetchError, retries=0)
    assert files_left() == []


def test_a_link_where_a_download_keeps_its_state_is_refused(server, get, here):
    (here / "elsewhere").mkdir()
    (here / "downloads").mkdir()
    (here / "downloads" / ".fetch").symlink_to(here / "elsewhere")
    assert ".fetch is a link" in get.error(server.on("/data.bin"))
    assert not list((here / "elsewhere").iterdir()) and not server.requests


def test_a_server_error_is_retried(server, get):
    for status in (500, 429, 408):
        get(server.on(f"/{status}.bin", Response(status, b"later"), Response()))
        assert Path(f"downloads/{status}.bin").read_bytes() == BODY
        assert get.waited == [0, 1]


def test_a_client_error_is_not_retried(server, get):
    for count, status in enumerate((401, 404), start=1):
        error = get.error(server.on("/data.bin", Response(status, b"no")))
        assert str(status) in error
        assert len(server.requests) == count and files_left() == []


@pytest.mark.parametrize(
    ("declared", "settings", "length", "message"),
    [
        ({"sha256": "0" * 64}, {}, None, f"data.bin has sha256 {SHA256}: not the declared one"),
        ({"size": 7}, {}, None, f"data.bin has size {len(BODY)}: not the declared one"),
        ({"size": len(BODY) + 1}, {}, 0, f"data.bin has size {len(BODY)}: not the declared one"),
        ({}, {"max_gb": 1e-4}, None, "download.max_gb"),
        ({}, {"max_gb": 1e-4}, 0, "download.max_gb"),
    ],
)
def test_a_file_that_is_not_as_declared_leaves_nothing(
    server, get, declared, settings, length, message
):
    """A `length` of 0: the server does not announce it."""
    url = server.on("/data.bin", Response(length=length))
    assert message in get.error({"url": url, **declared}, **settings)
    assert files_left() == [] and len(server.requests) == 1


def test_redirects_send_the_password_to_the_same_host_only(server, get):
    other = server.url.replace("127.0.0.1", "localhost")
    server.on("/a/data.bin", Response(302, headers={"Location": "/b"}))
    server.on("/b", Response(307, headers={"Location": f"{other}/c"}))
    server.on("/c")
    get(server.url.replace("//", "//ann:pass@") + "/a/data.bin")
    assert PATH.read_bytes() == BODY
    authorized = {path: "authorization" in headers for path, headers in server.requests}
    assert authorized == {"/a/data.bin": True, "/b": True, "/c": False}


def redirected(url, place, secrets="(?!)"):
    response = requests.Response()
    response.url, response.headers["Location"] = url, place
    target = targets(Download.model_validate({"files": ["https://ann:hidden@h/a"]}))[0]
    check_redirect(target, secrets, response)


def test_an_unsafe_or_endless_redirect_is_refused(server, get):
    places = ("file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "https://[::1/b", "/data.bin")
    for location in places:
        url = server.on("/data.bin", Response(302, headers={"Location": location}))
        assert url in get.error(url)
    redirected("https://ann:hidden@h/a", "//h/b")
    assert "hidden" not in str(errors_of(redirected, "https://ann:hidden@h/a", "http://h/b"))


def test_files_of_the_user_are_never_replaced(server, get):
    url = server.on("/data.bin")
    PATH.parent.mkdir()
    PATH.write_text("mine")
    for declared in (url, {"url": url, "sha256": SHA256}):
        get.error(declared)
    PATH.write_bytes(BODY)  # a copy of the file is recognized by its checksum
    assert not get({"url": url, "sha256": SHA256})[0].is_new
    assert server.requests == []
    PATH.unlink()
    get(url)
    other = server.on("/other/data.bin")
    for declared in (other, {"url": url, "sha256": hashlib.sha256(b"other").hexdigest()}):
        get.error(declared)
    assert PATH.read_bytes() == BODY
    PATH.write_text("mine")
    get.error(url)  # another size
    PATH.write_bytes(BODY[::-1])
    get.error({"url": url, "sha256": SHA256})
    assert PATH.read_bytes() == BODY[::-1]


def test_secrets_reach_only_the_server(server, get, here, monkeypatch):
    monkeypatch.setenv("MINE", "hidden")
    url = server.on("/data.bin").replace("//", "//ann:${MINE}@")
    get(f"{url}?api_key=hidden", variables=["MINE"])
    path, headers = server.requests[0]
    assert (
        path == "/data.bin?api_key=hidden" and headers["authorization"] == "Basic YW5uOmhpZGRlbg=="
    )
    assert "hidden" not in "".join(get.printed)
    for file in here.rglob("*"):
        assert not file.is_file() or b"hidden" not in file.read_bytes()


def test_a_variable_is_sent_only_if_allowed_and_unread_by_others(server, get, monkeypatch):
    monkeypatch.setenv("MINE", "hidden")
    monkeypatch.setenv("ALSO", "two")
    url = server.on("/data.bin").replace("//", "//${ALSO}:${MINE}@")
    error = get.error(url, variables=["ALSO"])
    assert url in error and "--set download.variables=ALSO,MINE" in error
    for host in ("http://h.invalid", "http://127.0.0.1.h.invalid", "http://h.invalid:80"):
        error = get.error(f"{host}/a?id=${{MINE}}", variables=["MINE"])
        assert f"{host}/a" in error
    with pytest.raises(ValueError, match="has a backslash"):
        Download.model_validate({"files": ["http://h\\@[::1]/a"]})
    assert server.requests == []
    get(url, variables=["ALSO", "MINE"])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("place", "is_refused"),
    [
        ("https://h.invalid/?id=hidden%2F1", True),
        ("https://hidden%2F1@h.invalid/", True),
        ("//h.invalid/hidden/1", True),
        ("https://h.invalid/unhidden/12", False),
        ("/b?id=hidden/1", False),
    ],
)
def test_no_redirect_carries_a_variable_to_another_host(
    get, server, monkeypatch, place, is_refused
):
    monkeypatch.setenv("MINE", "hidden/1")
    target = targets(Download.model_validate({"files": [f"{server.url}/a?id=${{MINE}}"]}))[0]
    secrets = _url(target, ["MINE"])[1]
    with pytest.raises(SettingsError) if is_refused else nullcontext():
        redirected("http://127.0.0.1/a?id=hidden/1", place, secrets)


def test_ctrl_c_leaves_nothing(server, get, monkeypatch):
    url = server.on("/data.bin", Response(cut=HALF))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(time, "sleep", Mock(side_effect=KeyboardInterrupt))
        get(url)
    assert files_left() == []
