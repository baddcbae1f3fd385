"""Declared files come here whole, once, and from where they were when the last try broke off."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.download.errors import FetchError
from tests.launcher.download.server import BODY, Answer

SHA256 = hashlib.sha256(BODY).hexdigest()
PLACE = Path("downloads/data.bin")
HALF = len(BODY) // 2
KEPT = HALF - HALF % (1 << 14)
"""What is kept of half a body: whole pieces."""


def left() -> list[str]:
    """All files below downloads/, but for locks and what is known of them."""
    files = (p for p in Path("downloads").rglob("*") if p.is_file())
    return sorted(p.name for p in files if p.suffix not in (".lock", ".json"))


def test_a_file_comes_and_its_checksum_is_told(server, get):
    [found] = get(server.on("/set/data.bin"))
    assert (found.path, found.sha256, found.size, found.is_new) == (PLACE, SHA256, len(BODY), True)
    assert PLACE.read_bytes() == BODY
    assert get.told[-1].endswith(f"to have it checked the next time, write  sha256: {SHA256}")
    assert left() == ["data.bin"]


def test_what_is_there_is_not_fetched_again_and_is_one_line(server, get):
    url = server.on("/data.bin")
    get({"url": url, "sha256": SHA256.upper()})
    [found] = get({"url": url, "sha256": SHA256})
    assert not found.is_new and get.told == []
    assert found.line == f"{PLACE} is there already, as declared"
    get(url)  # known by its URL
    get({"url": "https://elsewhere.invalid/data.bin", "sha256": SHA256})  # or by its checksum
    assert len(server.asked) == 1


def test_a_file_that_was_brought_by_other_means_is_known_by_its_checksum(server, get):
    PLACE.parent.mkdir()
    PLACE.write_bytes(BODY)
    assert not get({"url": server.on("/data.bin"), "sha256": SHA256})[0].is_new
    assert server.asked == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_transfer_that_breaks_off_goes_on_where_it_was(server, get, chunked):
    headers = {"ETag": '"one"'}
    first = Answer(cut=HALF, headers=headers, chunked=chunked)
    get(server.on("/data.bin", first, Answer(headers=headers)))
    assert PLACE.read_bytes() == BODY
    begun = int(server.ranges[1].removeprefix("bytes=").rstrip("-"))
    assert begun >= KEPT - (1 << 14)
    assert server.asked[1][1]["if-range"] == '"one"'
    assert "try 2 of 6 in" in get.told[1]


def test_a_server_that_gives_less_than_the_rest_is_asked_on(server, get):
    quarter = len(BODY) // 4
    helpings = [
        Answer(
            206,
            BODY[start : start + quarter],
            {"ETag": '"x"', "Content-Range": f"bytes {start}-{start + quarter - 1}/{len(BODY)}"},
        )
        for start in (quarter, 2 * quarter, 3 * quarter)
    ]
    get(server.on("/data.bin", Answer(cut=quarter, headers={"ETag": '"x"'}), *helpings))
    assert PLACE.read_bytes() == BODY
    assert any(f"only {2 * quarter} of {len(BODY)} bytes came" in line for line in get.told)


def test_what_a_fault_left_is_gone_on_with_by_the_next_call(server, get):
    headers = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    url = server.on("/data.bin", Answer(cut=HALF, headers=headers))
    with pytest.raises(FetchError) as failed:
        get(url, retries=0)
    assert "are kept" in str(failed.value) and left() == ["data.bin.part"]
    server.on("/data.bin", Answer(headers=headers))
    get(url)
    assert PLACE.read_bytes() == BODY and server.ranges[1] is not None
    assert "going on after" in get.told[0]


def test_a_server_that_gives_no_parts_is_asked_for_the_whole(server, get):
    answers = [Answer(cut=HALF, headers={"ETag": '"x"'}, ranges=False)] * 2
    get(server.on("/data.bin", *answers, Answer(headers={"ETag": '"x"'}, ranges=False)))
    assert PLACE.read_bytes() == BODY


def test_without_a_stamp_or_a_checksum_nothing_is_put_together(server, get):
    get(server.on("/data.bin", Answer(cut=HALF), Answer()))
    assert server.ranges == [None, None]


def test_with_a_checksum_parts_are_put_together_and_proved(server, get):
    get({"url": server.on("/data.bin", Answer(cut=HALF), Answer()), "sha256": SHA256})
    assert server.ranges[1] is not None and PLACE.read_bytes() == BODY


NEW = BODY[::-1]


@pytest.mark.parametrize("minds_if_range", [True, False])
def test_a_file_that_changed_between_two_tries_is_fetched_from_its_beginning(
    server, get, minds_if_range
):
    first = Answer(cut=HALF, headers={"ETag": '"old"'})
    second = Answer(body=NEW, headers={"ETag": '"new"'})
    if not minds_if_range:  # a part of the new file, in answer to the request for the old one's
        second = Answer(206, NEW, {"ETag": '"new"', "Content-Range": f"bytes {KEPT}-9/10"})
    get(server.on("/data.bin", first, second, Answer(body=NEW, headers={"ETag": '"new"'})))
    assert PLACE.read_bytes() == NEW


def test_parts_of_two_states_are_found_by_the_checksum_and_fetched_anew(server, get):
    mixed = Answer(body=bytes(len(BODY)), cut=HALF)
    url = server.on("/data.bin", mixed, Answer())
    get({"url": url, "sha256": SHA256})
    assert PLACE.read_bytes() == BODY
    assert any("its checksum is wrong; from the beginning" in line for line in get.told)


def test_what_another_url_left_is_not_gone_on_with(server, get):
    first = server.on("/a/data.bin", Answer(cut=HALF, headers={"ETag": '"x"'}))
    with pytest.raises(FetchError):
        get(first, retries=0)
    get(server.on("/b/data.bin", Answer(body=NEW, headers={"ETag": '"x"'})))
    assert server.ranges == [None, None] and PLACE.read_bytes() == NEW


def test_a_part_that_is_the_whole_needs_no_more(server, get):
    url = server.on("/data.bin", Answer(headers={"ETag": '"x"'}))
    state = Path("downloads/.fetch")
    state.mkdir(parents=True)
    (state / "data.bin.part").write_bytes(BODY)
    (state / "data.bin.part.json").write_text(f'{{"url": "{url}", "etag": "\\"x\\""}}')
    get(url)
    assert server.ranges == [f"bytes={len(BODY)}-"] and PLACE.read_bytes() == BODY


def test_a_range_that_there_is_not_begins_anew(server, get):
    url = server.on("/data.bin", Answer(416), Answer())
    state = Path("downloads/.fetch")
    state.mkdir(parents=True)
    (state / "data.bin.part").write_bytes(BODY + b"more")
    (state / "data.bin.part.json").write_text(f'{{"url": "{url}", "etag": "\\"x\\""}}')
    get(url)
    assert server.ranges[1:] == [None] and PLACE.read_bytes() == BODY


def test_a_broken_account_of_a_part_is_no_account(server, get):
    url = server.on("/data.bin")
    state = Path("downloads/.fetch")
    state.mkdir(parents=True)
    (state / "data.bin.part").write_bytes(b"something")
    for broken in ("[", "[]", '{"url": 3}', f'{{"url": "{url}", "etag": 3}}'):
        (state / "data.bin.part.json").write_text(broken)
        PLACE.unlink(missing_ok=True)
        get(url)
        assert PLACE.read_bytes() == BODY


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_a_server_in_trouble_is_asked_again(server, get, status):
    get(server.on("/data.bin", Answer(status, b"later"), Answer()))
    assert PLACE.read_bytes() == BODY and len(get.waited) == 1 and 0.5 <= get.waited[0] <= 1


def test_a_server_is_waited_for_as_long_as_it_asks(server, get):
    get(server.on("/data.bin", Answer(429, headers={"Retry-After": "37"}), Answer()))
    assert get.waited == [37]
    url = server.on("/b.bin", Answer(503, headers={"Retry-After": "86400"}), Answer())
    with pytest.raises(FetchError) as failed:
        get(url)
    assert "and asks to wait 1d00h" in str(failed.value) and get.waited == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_an_answer_that_stays_as_it_is_is_not_asked_for_again(server, get, status):
    with pytest.raises(SettingsError) as wrong:
        get(server.on("/data.bin", Answer(status, b"no")))
    assert f"the server answers {status} " in str(wrong.value)
    assert len(server.asked) == 1 and left() == []


def test_so_many_tries_in_a_row_and_no_more(server, get):
    with pytest.raises(FetchError) as failed:
        get(server.on("/data.bin", Answer(500)), retries=3)
    assert len(server.asked) == 4 and len(get.waited) == 3
    assert get.waited == sorted(get.waited)
    told = str(failed.value).splitlines()
    assert told[0] == (
        "data.bin was not fetched: the server answers 500 Internal Server Error, 4 times in a row"
    )


def test_a_try_that_brought_much_counts_as_a_first_one(server, get):
    big = BODY * 20
    parts = [Answer(body=big, cut=len(BODY) * 5, headers={"ETag": '"x"'})] * 4
    get(server.on("/data.bin", *parts, Answer(body=big, headers={"ETag": '"x"'})), retries=1)
    assert PLACE.read_bytes() == big


def test_a_silent_server_is_given_up(server, get):
    with pytest.raises(FetchError) as failed:
        get(server.on("/data.bin", Answer(silent=True)), retries=1, timeout_s=0.1)
    assert "the server is silent, 2 times in a row" in str(failed.value)


def test_nobody_at_the_port_is_told_without_the_url(get, here):
    with pytest.raises(FetchError) as failed:
        get("http://u:hidden@127.0.0.1:9/data.bin?token=hidden", retries=0)
    assert "connection refused" in str(failed.value) and "hidden" not in str(failed.value)


def test_a_wrong_checksum_leaves_nothing(server, get):
    with pytest.raises(SettingsError) as wrong:
        get({"url": server.on("/data.bin"), "sha256": "0" * 64})
    assert str(wrong.value).splitlines()[0] == (
        f"error: data.bin has the sha256 {SHA256}, not the one that is declared"
    )
    assert left() == [] and len(server.asked) == 1


def test_a_body_longer_than_announced_is_refused(server, get):
    headers = {"ETag": '"x"'}
    lie = Answer(206, BODY, {**headers, "Content-Range": f"bytes {KEPT}-{KEPT + 9}/{KEPT + 10}"})
    url = server.on("/data.bin", Answer(cut=KEPT + 1, headers=headers), lie)
    with pytest.raises(SettingsError) as wrong:
        get(url)
    assert "more came than the" in str(wrong.value) and left() == []


def test_a_body_without_a_length_is_held_to_the_declared_size(server, get):
    url = server.on("/data.bin", Answer(length=0))
    with pytest.raises(SettingsError) as wrong:
        get({"url": url, "size": len(BODY) + 1})
    assert f"{len(BODY) + 1} bytes" in str(wrong.value)
    get({"url": url, "size": len(BODY)})
    assert PLACE.read_bytes() == BODY


def test_another_size_than_the_declared_one_is_refused_before_a_byte_is_fetched(server, get):
    with pytest.raises(SettingsError) as wrong:
        get({"url": server.on("/data.bin"), "size": 7})
    assert "not those that are declared" in str(wrong.value) and left() == []


@pytest.mark.parametrize("length", [None, 0])
def test_nothing_grows_over_the_most(server, get, length):
    with pytest.raises(SettingsError) as wrong:
        get(server.on("/data.bin", Answer(length=length)), max_gb=1e-4)
    assert "as download.max_gb says" in str(wrong.value)


def test_a_full_disk_is_told_before_a_byte_is_fetched(server, get):
    huge = Answer(length=1 << 60, cut=0)
    with pytest.raises(SettingsError) as wrong:
        get(server.on("/data.bin", huge), max_gb=1e12)
    assert "and the disk of downloads has" in str(wrong.value)


def test_redirects_are_followed_and_the_password_goes_with_them_on_one_host_alone(server, get):
    other = server.url.replace("127.0.0.1", "localhost")
    server.on("/a/data.bin", Answer(302, headers={"Location": "/b"}))
    server.on("/b", Answer(307, headers={"Location": f"{other}/c"}))
    server.on("/c")
    get(server.url.replace("//", "//ann:pass@") + "/a/data.bin")
    assert PLACE.read_bytes() == BODY
    assert ["authorization" in headers for _, headers in server.asked] == [True, True, False]


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("file:///etc/hostname", "redirects to what is no web address: file:"),
        ("ftp://127.0.0.1/x", "redirects to what is no web address: ftp:"),
        ("/data.bin", "redirects more than 10 times"),
    ],
)
def test_a_redirect_that_leads_nowhere_good_is_refused(server, get, location, said):
    with pytest.raises(SettingsError) as wrong:
        get(server.on("/data.bin", Answer(302, headers={"Location": location})))
    assert said in str(wrong.value)


def test_compression_that_nobody_asked_for_is_refused(server, get):
    with pytest.raises(SettingsError) as wrong:
        get(server.on("/data.bin", Answer(headers={"Content-Encoding": "gzip"})))
    assert "sends the file as gzip, unasked" in str(wrong.value)


def test_a_server_is_asked_whether_there_is_something_newer(server, get):
    url = server.on("/data.bin", Answer(headers={"ETag": '"one"'}))
    get(url)
    assert not get(url, again=True)[0].is_new and get.told == []
    assert server.asked[1][1]["if-none-match"] == '"one"'
    server.on("/data.bin", Answer(body=NEW, headers={"ETag": '"two"'}))
    assert get(url, again=True)[0].is_new and PLACE.read_bytes() == NEW
    assert not get({"url": url, "sha256": hashlib.sha256(NEW).hexdigest()}, again=True)[0].is_new
    assert len(server.asked) == 3


def test_the_same_bytes_again_are_not_new(server, get):
    url = server.on("/data.bin")
    get(url)
    before = PLACE.stat().st_mtime_ns
    assert not get(url, again=True)[0].is_new
    assert PLACE.stat().st_mtime_ns == before


def test_what_a_person_put_or_changed_there_is_never_replaced(server, get):
    url = server.on("/data.bin")
    PLACE.parent.mkdir()
    PLACE.write_text("mine")
    for declared in (url, {"url": url, "sha256": SHA256}):
        with pytest.raises(SettingsError):
            get(declared)
    PLACE.unlink()
    get(url)
    with pytest.raises(SettingsError) as wrong:
        get(server.on("/other/data.bin"))
    assert f"{PLACE} was fetched from {url}" in str(wrong.value)
    PLACE.write_text("mine")
    os.utime(PLACE, (1, 1))
    with pytest.raises(SettingsError) as wrong:
        get(url)
    assert f"{PLACE} was changed since it was fetched" in str(wrong.value)
    assert PLACE.read_text() == "mine"


def test_a_file_that_was_only_touched_is_still_the_one(server, get):
    url = server.on("/data.bin")
    get(url)
    os.utime(PLACE, (1, 1))
    assert not get(url)[0].is_new and len(server.asked) == 1


def test_another_checksum_for_the_same_url_fetches_anew(server, get):
    url = server.on("/data.bin", Answer(), Answer(body=NEW))
    get(url)
    get({"url": url, "sha256": hashlib.sha256(NEW).hexdigest()})
    assert PLACE.read_bytes() == NEW


def test_secrets_reach_the_server_and_nothing_else(server, get, here, monkeypatch):
    monkeypatch.setenv("MINE", "hidden")
    url = server.on("/data.bin").replace("//", "//ann:${MINE}@")
    get(f"{url}?api_key=hidden")
    path, headers = server.asked[0]
    assert (
        path == "/data.bin?api_key=hidden" and headers["authorization"] == "Basic YW5uOmhpZGRlbg=="
    )
    assert "hidden" not in "".join(get.told)
    for file in here.rglob("*"):
        assert not file.is_file() or b"hidden" not in file.read_bytes()


def test_a_variable_that_is_not_set_and_a_secret_that_was_cut_are_told(get, here):
    for url, said in (
        ("https://${NO_SUCH}@h.invalid/a", "names the variable NO_SUCH, which is not set"),
        ("https://***@h.invalid/a", "were cut out when the settings were saved"),
    ):
        with pytest.raises(SettingsError) as wrong:
            get(url)
        assert said in str(wrong.value)


def test_a_file_of_this_machine_is_copied(get, here):
    source = here / "far away" / "data.bin"
    source.parent.mkdir()
    source.write_bytes(BODY)
    url = source.as_uri()
    get({"url": url, "sha256": SHA256})
    assert PLACE.read_bytes() == BODY
    get(url, again=True)
    source.write_bytes(NEW)
    assert get(url, again=True)[0].is_new and PLACE.read_bytes() == NEW
    for wrong in (here.as_uri() + "/none", here.as_uri()):
        with pytest.raises(SettingsError):
            get({"url": wrong, "name": "other"})


def test_ctrl_c_keeps_what_has_come(server, get, monkeypatch):
    url = server.on("/data.bin", Answer(headers={"ETag": '"x"'}))

    def interrupt(progress):
        if progress.done_bytes >= HALF:
            raise KeyboardInterrupt

    get.drawn = type("Drawn", (), {"append": staticmethod(interrupt)})
    with pytest.raises(KeyboardInterrupt):
        get(url)
    assert get.told[-1].endswith("are kept; the same words go on from there")
    get.drawn = []
    get(url)
    assert server.ranges[1] == f"bytes={HALF}-" and PLACE.read_bytes() == BODY


def test_a_folder_that_cannot_be_written_is_told(server, get, here):
    (here / "downloads").write_text("a file")
    with pytest.raises(FetchError) as failed:
        get(server.on("/data.bin"))
    assert "downloads" in str(failed.value) and "cannot be written" in str(failed.value)


def test_how_far_it_has_come_is_drawn(server, get):
    get(server.on("/data.bin"))
    done = [progress.done_bytes for progress in get.drawn]
    assert done == sorted(done) and done[-1] == len(BODY)
    assert {progress.total_bytes for progress in get.drawn} == {len(BODY)}


def test_a_start_that_was_killed_as_it_moved_the_file_leaves_one_that_is_known(server, get):
    url = server.on("/data.bin")
    get(url)
    PLACE.rename("kept")
    assert get(url)[0].is_new  # remembered, and not there: killed before it was moved
    assert len(server.asked) == 2


def test_a_proxy_of_the_environment_is_asked(server, get, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    server.answers["http://data.invalid/data.bin"] = [Answer()]
    get("http://data.invalid/data.bin")
    assert PLACE.read_bytes() == BODY


def test_user_and_password_of_netrc_are_used(server, get, here, monkeypatch):
    (here / "netrc").write_text("machine 127.0.0.1 login ann password hidden\n")
    monkeypatch.setenv("NETRC", str(here / "netrc"))
    get(server.on("/data.bin"))
    assert server.asked[0][1]["authorization"] == "Basic YW5uOmhpZGRlbg=="
