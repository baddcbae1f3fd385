"""What a hostile hub sends: nothing is written outside the cache, and one error is given."""

import json

import pytest
from huggingface_hub import constants

from gearshift.launcher.config import hub, hub_border
from tests.launcher.download.server import Response
from tests.launcher.given import errors_of
from tests.launcher.hub import COMMIT, serving_hub

NAME = "hf:org/tiny"
OUTSIDE = "../../../planted"


@pytest.fixture
def server(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with serving_hub(tmp_path / "home" / "deep", monkeypatch) as running:
        running.add("org/tiny", folder)
        yield running


def refuses(server, tmp_path, name=NAME):
    """Whether one error is given, and no file lies outside the cache."""
    before = {path for path in tmp_path.rglob("*") if server.cache not in path.parents}
    errors = errors_of(hub.fetch, name)
    after = {path for path in tmp_path.rglob("*") if server.cache not in path.parents}
    return len(errors) == 1 and not (after - before - {server.cache, *server.cache.parents})


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ("revision/main", "sha", OUTSIDE),
        ("revision/main", "sha", "/planted"),
        (f"tree/{COMMIT}", "path", f"{OUTSIDE}/config.json"),
        (f"tree/{COMMIT}", "path", "/planted/config.json"),
        (f"tree/{COMMIT}", "path", "a\\config.json"),
        (f"tree/{COMMIT}", "path", "a\0config.json"),
        (f"tree/{COMMIT}", "oid", OUTSIDE),
        (f"tree/{COMMIT}", "lfs", {"oid": OUTSIDE, "size": 2, "pointerSize": 2}),
    ],
)
def test_names_in_the_listing_stay_in_the_cache(server, tmp_path, path, key, value):
    path = f"/api/models/org/tiny/{path}"
    (answer,) = server._server.responses[path]
    facts = json.loads(answer.body)
    (facts[0] if isinstance(facts, list) else facts)[key] = value
    server._server.on(path, Response(body=json.dumps(facts).encode()))
    assert refuses(server, tmp_path)


@pytest.mark.parametrize("header", ["X-Repo-Commit", "ETag", "X-Linked-ETag"])
def test_names_in_headers_stay_in_the_cache(server, tmp_path, header):
    (answer,) = server._server.responses[f"/org/tiny/resolve/{COMMIT}/config.json"]
    answer.headers[header] = OUTSIDE
    assert refuses(server, tmp_path)


@pytest.mark.parametrize("revision", ["../../planted", "/planted", "a/../../../planted"])
def test_a_revision_is_no_path(server, tmp_path, revision):
    assert refuses(server, tmp_path, f"{NAME}@{revision}")


def test_a_hub_elsewhere_needs_https(server, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://192.0.2.1:9")
    assert refuses(server, tmp_path)
    for url in ("http://example.org", "http://192.0.2.1:9"):
        with pytest.raises(hub_border.UnsafeHub):
            hub_border.check_url(url)
    hub_border.check_url("https://huggingface.co")


def test_a_redirect_to_http_elsewhere_is_not_followed(server, tmp_path):
    path = f"/org/tiny/resolve/{COMMIT}/config.json"
    (answer,) = server._server.responses[path]
    headers = {**answer.headers, "Location": "http://192.0.2.1:9/config.json"}
    server._server.on(path, Response(302, b"", headers))
    assert refuses(server, tmp_path)


def test_a_link_out_of_the_cache_is_refused(server, tmp_path):
    pinned = hub.fetch(NAME)
    link = hub.folder_of(pinned) / "tokenizer.json"
    link.symlink_to(tmp_path / "model" / "config.json")
    hub.fetch.cache_clear()
    assert refuses(server, tmp_path)
