"""Declared files are checked with the line they stand on, and `data.path` leads to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.base.diagnostics import SettingsError, as_json, render
from launcher.config import render as settings_text
from tests.launcher.given import resolved
from tests.launcher.own_tasks import HEAD, write

URL = "https://example.org/set.zip"
FETCH = "download.fetch=true"
METHODS = ("samples", "build", "measure")


@pytest.fixture
def config(here):
    """Writes mine.yaml."""

    def config(text):
        Path("mine.yaml").write_text(text)
        return [Path("mine.yaml")]

    return config


def path_of(*sets, **words):
    return resolved(*sets, **words).values["data.path"]


@pytest.mark.parametrize(
    ("files", "path"),
    [
        (URL, "downloads/set"),
        ("https://example.org/a.csv", "downloads/a.csv"),
        ("https://example.org/a.csv.gz", "downloads/a.csv"),
        (f"{{url: {URL}, unpack: no}}", "downloads/set.zip"),
        (f"{{url: {URL}, name: other.tgz}}", "downloads/other"),
        (f"{URL}, https://example.org/b.csv", "downloads/set-and-1-more"),
    ],
)
def test_data_path_leads_to_what_is_fetched(here, files, path):
    value = path_of(FETCH, f"download.files=[{files}]")
    assert value.value == path
    assert value.origin.layer == "machine" and value.origin.place == f"--set {FETCH}"


def test_a_folder_of_the_persons_own_is_taken(here):
    files = f"download.files=[{URL}, https://example.org/b.csv]"
    assert path_of(FETCH, files, "download.folder=mine").value == "mine"
    assert path_of(FETCH, f"download.files=[{URL}]", "download.folder=mine").value == "mine/set"


def test_a_data_path_of_the_persons_own_stays_and_need_not_be_there_yet(here):
    files = f"download.files=[{URL}]"
    assert path_of(FETCH, files, data="downloads/set/part").value == "downloads/set/part"
    with pytest.raises(SettingsError, match=r"data\.path 'elsewhere/x' is not there"):
        path_of(FETCH, files, data="elsewhere/x")
    with pytest.raises(SettingsError, match="is not there"):
        path_of(files, data="downloads/set")


def test_that_data_path_was_filled_in_is_announced(here):
    assert (
        f"data.path: downloads/set, of --set {FETCH}"
        in resolved(FETCH, f"download.files=[{URL}]").notes
    )


def test_nothing_is_fetched_for_a_task_without_a_path_that_could_lead_there(here):
    methods = "".join(f"    def {name}(self, *given): ...\n" for name in METHODS)
    module = write(here, f"{HEAD}class Own(CustomTask):\n{methods}")
    found = resolved(FETCH, f"download.files=[{URL}]", model=f"{module}:Own")
    assert "data.path" not in found.values


def test_files_that_are_not_fetched_are_warned_of(config):
    found = resolved(configs=config(f"download:\n  files: [{URL}]\n"))
    [warning] = found.warnings
    assert render([warning]) == (
        "warning: download.files is declared, and this run does not fetch it; it would train on "
        "embedded:python\n"
        "  where         mine.yaml:2 download.files\n"
        "  fix           --download-data  or name what is there with  --data PATH"
    )
    there = resolved(configs=config(f"download:\n  files: [{URL}]\n"), data="embedded:python")
    assert there.warnings == []


def test_no_url_at_all_is_told_with_an_example(here):
    with pytest.raises(SettingsError) as wrong:
        resolved(FETCH)
    assert str(wrong.value).splitlines() == [
        f"error: --set {FETCH}: download.files declares no URL",
        f"  where         --set {FETCH}",
        "  allowed       URLs (http, https, file), such as  [https://example.org/data.zip]; or with "
        "more to say, [{url: https://…, sha256: …, name: data.zip, unpack: no, size: 1000}]",
        "  fix           write into a settings file  download: {files: "
        "[https://example.org/data.zip]}  and name it with  --config",
    ]


WRONG = """\
download:
  files:
    - ftp://example.org/a.zip
    - {url: https://ann:hidden@example.org/a, sha256: 12ab}
    - url: https://example.org/b
      sha265: 12ab
    - sha256: 12ab
    - 7
    - {url: https://example.org/c, unpack: never, size: -1, name: ../c}
"""
TOLD = """\
error: download.files[0].url 'ftp://example.org/a.zip' has the scheme 'ftp'
  where         mine.yaml:3 download.files[0].url
error: download.files[1].sha256 '12ab' is not understood
  where         mine.yaml:4 download.files[1].sha256
error: download.files[2] has no key 'sha265'
  where         mine.yaml:6 download.files[2]
  did you mean  sha256
  fix           sha256: 12ab
error: download.files[3] has no url
  where         mine.yaml:7 download.files[3]
error: download.files[3].sha256 '12ab' is not understood
  where         mine.yaml:7 download.files[3].sha256
error: download.files[4] 7 is not understood
  where         mine.yaml:8 download.files[4]
error: download.files[5].name '../c' holds one of  < > : " / \\ | ? *  or a control character
  where         mine.yaml:9 download.files[5].name
error: unknown download.files[5].unpack 'never'
  where         mine.yaml:9 download.files[5].unpack
error: download.files[5].size -1 is out of range
  where         mine.yaml:9 download.files[5].size
  did you mean  0
  fix           size: 0
"""


def test_each_wrong_file_is_told_with_its_line(config):
    with pytest.raises(SettingsError) as wrong:
        resolved(configs=config(WRONG))
    lines = str(wrong.value).splitlines()
    assert [line for line in lines if not line.startswith("  allowed")] == TOLD.splitlines()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ("https://example.org/", "does not end in the name of a file"),
        (f"{URL}, https://example.org/other/set.zip", "would lie at downloads/set-and-1-more/set"),
        ("https://example.org/a.gz, https://example.org/A.xz", "where another one does"),
    ],
)
def test_files_without_a_place_of_their_own_are_refused(here, files, said):
    with pytest.raises(SettingsError) as wrong:
        resolved(FETCH, f"download.files=[{files}]")
    assert said in str(wrong.value)


def test_no_secret_reaches_settings_origins_and_messages(config):
    secret = "https://ann:hidden@example.org/set.zip?token=hidden"
    found = resolved(FETCH, f"download.files=[{secret}]", configs=config("train: {seed: 1}"))
    for text in (settings_text.render_settings(found), settings_text.render_origins(found)):
        assert "https://***@example.org/set.zip?token=***" in text and "hidden" not in text
    assert found.settings.download.files[0].url.unredacted == secret
    with pytest.raises(SettingsError) as wrong:
        resolved(f"download.filse=[{secret}]", f"download.files=[{{url: '{secret}', x: 1}}]")
    assert "hidden" not in str(wrong.value) + str(as_json(wrong.value.diagnostics))


def test_settings_that_are_fed_back_come_to_the_same(here, config):
    found = resolved(FETCH, f"download.files=[{URL}, {{url: {URL}, name: b, unpack: no}}]")
    again = resolved(configs=config(settings_text.render_settings(found)))
    assert again.settings == found.settings
