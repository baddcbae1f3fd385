"""Checks of the settings of downloads and continual learning."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.base.diagnostics import SettingsError, as_json, render
from launcher.config import feature_checks
from launcher.config import render as settings_text
from launcher.config.feature_settings import name_error, safe_name
from launcher.config.paths import kept_values
from tests.launcher.custom_tasks import HEAD, write
from tests.launcher.given import resolved

ON = "continual.enabled=true"


@pytest.fixture
def messages(tmp_path, monkeypatch):
    """The error text of settings, in a folder with a folder of data."""
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    Path("texts/a.txt").touch()

    def lines(*sets: str, **options: str) -> str:
        with pytest.raises(SettingsError) as raised:
            resolved(ON, *sets, **options)
        return str(raised.value)

    return lines


def test_other_data_than_a_folder_is_refused(messages):
    text = messages()
    assert "data.path 'embedded:python' is not a folder: new files cannot arrive there" in text
    assert "--data FOLDER" in text
    assert "--data texts" in messages(data="texts/a.txt")


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (("save.last=false",), "saves no checkpoint that the next experience can start from"),
        (("eval.test=true",), "continual learning measures forgetting instead"),
        (("data.control=noise",), "is a control run, which ends with its result"),
    ],
)
def test_contradicting_settings_are_refused(messages, sets, expected):
    assert expected in messages(*sets, data="texts")


def test_settings_without_continual_learning_warn():
    found = resolved("continual.replay=0.25")
    assert any("has no effect: continual.enabled is false" in str(w) for w in found.warnings)


def test_torchrun_is_refused(messages):
    (error,) = feature_checks.check_launcher("torchrun", resolved(ON, data="texts").values)
    assert "cannot run under torchrun" in error.message


def test_a_run_folder_inside_the_watched_folder_is_refused(messages):
    values = resolved(ON, data="texts").values
    with pytest.raises(SettingsError, match="inside the watched folder texts"):
        feature_checks.check_run_folder(Path("texts/runs/x"), values)
    feature_checks.check_run_folder(Path("runs/x"), values)


URL = "https://example.org/set.zip"
FETCH = "download.fetch=true"
METHODS = ("samples", "build", "measure")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def config(here):
    """Writes mine.yaml."""

    def config(text):
        Path("mine.yaml").write_text(text)
        return [Path("mine.yaml")]

    return config


def path_of(*sets, **options):
    return resolved(*sets, **options).values["data.path"]


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
def test_data_path_is_set_to_the_downloaded_files(here, files, path):
    value = path_of(FETCH, f"download.files=[{files}]")
    assert value.value == path
    assert (
        value.origin.layer == "adapted to this machine" and value.origin.where == f"--set {FETCH}"
    )


def test_download_folder_is_used(here):
    files = f"download.files=[{URL}, https://example.org/b.csv]"
    assert path_of(FETCH, files, "download.folder=mine").value == "mine"
    assert path_of(FETCH, f"download.files=[{URL}]", "download.folder=mine").value == "mine/set"


def test_a_data_path_of_the_user_stays_and_need_not_exist_yet(here):
    files = f"download.files=[{URL}]"
    assert path_of(FETCH, files, data="downloads/set/part").value == "downloads/set/part"
    with pytest.raises(SettingsError, match=r"data\.path 'elsewhere/x' does not exist"):
        path_of(FETCH, files, data="elsewhere/x")
    with pytest.raises(SettingsError, match="does not exist"):
        path_of(files, data="downloads/set")


def paths(*sets, **options):
    values = resolved(ON, FETCH, *sets, **options).values
    return values["data.path"].value, values["download.folder"].value


def test_continual_learning_watches_the_folder_of_its_download(here):
    archive, text = f"download.files=[{URL}]", "download.files=[https://example.org/a.csv.gz]"
    assert paths(archive) == ("downloads/set", None)
    assert paths(text) == ("downloads/a", "downloads/a")
    assert paths(text, "download.folder=mine") == ("mine", "mine")
    assert paths(f"download.files=[{URL}, {URL}x]") == ("downloads/set-and-1-more", None)
    assert paths(text, data="incoming") == ("incoming", "incoming")
    assert paths(archive, data="downloads/set/part") == ("downloads/set/part", None)
    notes = resolved(ON, FETCH, text, data="incoming").notes
    assert "download.folder: incoming, the folder that continual.enabled watches" in notes


def test_the_change_of_data_path_is_announced(here):
    assert (
        f"data.path: downloads/set, from --set {FETCH}"
        in resolved(FETCH, f"download.files=[{URL}]").notes
    )


def test_a_task_without_data_path_gets_none(here):
    methods = "".join(f"    def {name}(self, *given): ...\n" for name in METHODS)
    module = write(here, f"{HEAD}class Own(CustomTask):\n{methods}")
    found = resolved(FETCH, f"download.files=[{URL}]", model=f"{module}:Own")
    assert "data.path" not in found.values


def test_files_that_are_not_downloaded_warn(config):
    found = resolved(configs=config(f"download:\n  files: [{URL}]\n"))
    [warning] = found.warnings
    assert render([warning]) == (
        "warning: download.files is declared but not downloaded: the run would train on "
        "embedded:python\n"
        "  where         mine.yaml:2 download.files\n"
        "  fix           --download-data  or name existing data with  --data PATH"
    )
    there = resolved(configs=config(f"download:\n  files: [{URL}]\n"), data="embedded:python")
    assert there.warnings == []


def test_no_url_at_all_is_an_error_with_an_example(here):
    with pytest.raises(SettingsError) as wrong:
        resolved(FETCH)
    assert str(wrong.value).splitlines() == [
        f"error: --set {FETCH}: download.files declares no URL",
        f"  where         --set {FETCH}",
        "  allowed       URLs (http, https, file), such as  [https://example.org/data.zip]; or with "
        "more keys, [{url: https://…, sha256: …, name: data.zip, unpack: no, size: 1000}]",
        "  fix           put into a settings file  download: {files: "
        "[https://example.org/data.zip]}  and name it with  --config FILE",
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
MESSAGES = """\
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
error: download.files[5].name '../c' contains one of  < > : " / \\ | ? *  or a control character
  where         mine.yaml:9 download.files[5].name
error: unknown download.files[5].unpack 'never'
  where         mine.yaml:9 download.files[5].unpack
error: download.files[5].size -1 is out of range
  where         mine.yaml:9 download.files[5].size
  did you mean  0
  fix           size: 0
"""


def test_each_wrong_file_is_reported_with_its_line(config):
    with pytest.raises(SettingsError) as wrong:
        resolved(configs=config(WRONG))
    lines = str(wrong.value).splitlines()
    assert [line for line in lines if not line.startswith("  allowed")] == MESSAGES.splitlines()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("https://example.org/", "does not end with a file name"),
        (
            f"{URL}, https://example.org/other/set.zip",
            "has the local path downloads/set-and-1-more/set",
        ),
        ("https://example.org/a.gz, https://example.org/A.xz", "like another file"),
    ],
)
def test_files_without_a_path_of_their_own_are_refused(here, files, message):
    with pytest.raises(SettingsError) as wrong:
        resolved(FETCH, f"download.files=[{files}]")
    assert message in str(wrong.value)


def test_no_secret_reaches_settings_origins_and_messages(config):
    secret = "https://ann:hidden@example.org/set.zip?token=hidden"
    found = resolved(FETCH, f"download.files=[{secret}]", configs=config("train: {seed: 1}"))
    for text in (settings_text.render_settings(found), settings_text.render_origins(found)):
        assert "https://***@example.org/set.zip?token=***" in text and "hidden" not in text
    assert found.settings.download.files[0].url.unredacted == secret
    with pytest.raises(SettingsError) as wrong:
        resolved(f"download.filse=[{secret}]", f"download.files=[{{url: '{secret}', x: 1}}]")
    assert "hidden" not in str(wrong.value) + str(as_json(wrong.value.diagnostics))


def test_settings_that_are_fed_back_resolve_to_the_same(here, config):
    found = resolved(FETCH, f"download.files=[{URL}, {{url: {URL}, name: b, unpack: no}}]")
    again = resolved(configs=config(settings_text.render_settings(found)))
    assert kept_values(again.values) == kept_values(found.values)


@pytest.mark.parametrize(
    ("url_end", "name"),
    [
        ("data.zip", "data.zip"),
        ('a/b\\c:"d"?.zip', "a-b-c-d-.zip"),
        ("..", ""),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("x" * 300 + ".tar.gz", "x" * 193 + ".tar.gz"),
        ("データ.zip", "データ.zip"),
    ],
)
def test_the_end_of_a_url_becomes_a_safe_name(url_end, name):
    assert safe_name(url_end) == name


def test_only_a_safe_name_is_accepted():
    for name in ("", "a/b", "a\\b", "..", ".a", "-a", "a.", "a ", "a:b", "\x07", "x" * 201):
        assert name_error(name) is not None, name
    for name in ("a", "a b.tar.gz", "データ", "a-b_c.1", "aux.c"):
        assert name_error(name) is None, name
