"""Checks of the settings of downloads and continual learning."""

from pathlib import Path

import pytest

from gearshift.launcher.base.diagnostics import as_json, render
from gearshift.launcher.config import feature_checks
from gearshift.launcher.config import render as settings_text
from gearshift.launcher.config.paths import kept_values
from gearshift.launcher.config.schema import File, safe_name
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write
from tests.launcher.given import refused, resolved

ON = "continual.enabled=true"


def test_settings_that_contradict_continual_learning_are_refused(here):
    Path("texts").mkdir()
    for sets, expected in (
        ((), "data.path"),
        (("data.path=texts", "eval.test=true"), "eval.test"),
        (("data.path=texts", "data.fold=1/5"), "data.fold"),
        (("data.path=texts", "data.control=noise"), "data.control"),
    ):
        assert [error.key for error in refused(ON, *sets)] == [expected], sets
    [error] = refused(ON, data="texts", world_size=1)
    assert error.key == "continual.enabled"
    run = resolved(ON, data="texts")
    feature_checks.check_run_folder(Path("runs/x"), run.values)
    (warning,) = resolved("continual.replay=0.25").warnings
    assert warning.key == "continual.replay"


URL = "https://example.org/set.zip"
FETCH = "download.fetch=true"


def config(text):
    """The files to name once mine.yaml is written."""
    Path("mine.yaml").write_text(text)
    return [Path("mine.yaml")]


def test_data_path_is_set_to_the_downloaded_files(here):
    two = f"{URL}, https://example.org/b.csv"
    for files, sets, path in (
        (URL, (), "downloads/set"),
        ("https://example.org/a.csv", (), "downloads/a.csv"),
        (f"{{url: {URL}, unpack: no}}", (), "downloads/set.zip"),
        (f"{{url: {URL}, name: other.tgz}}", (), "downloads/other"),
        (two, (), "downloads/set-and-1-more"),
        (URL, ("download.folder=mine",), "mine/set"),
    ):
        run = resolved(FETCH, f"download.files=[{files}]", *sets)
        value = run.values["data.path"]
        assert value.value == path
        assert value.origin.where == f"--set {FETCH}"
        assert f"data.path: {path}, from --set {FETCH}" in run.notes
    model = f"{write(here, HEAD + LINE + BODY)}:Line"  # without data.path
    found = resolved(FETCH, f"download.files=[{URL}]", model=model)
    assert "data.path" not in found.values
    (error,) = refused(ON, model=model)
    assert (error.key, error.where) == ("continual.enabled", f"--set {ON}")


def test_a_data_path_of_the_user_stays_and_need_not_exist_yet(here):
    files, data = f"download.files=[{URL}]", "downloads/set/part"
    assert resolved(FETCH, files, data=data).values["data.path"].value == data
    for sets, path in (((FETCH, files), "elsewhere/x"), ((files,), "downloads/set")):
        assert f"data.path '{path}' does not exist" in refused(*sets, data=path)[0].message


def test_a_file_that_asks_for_a_download_gets_none(here):
    configs = config(f"download:\n  fetch: true\n  files: ['{URL}']\n")
    asked = resolved(configs=configs, data="embedded:python")
    assert not feature_checks.is_requested(asked.values)
    assert asked.values["data.path"].value == "embedded:python"
    assert feature_checks.is_requested(resolved(FETCH, configs=configs).values)
    for data in ({}, {"data": "downloads/set"}):
        [error] = refused(configs=configs, **data)
        assert (error.key, error.fix) == ("data.path", "--download-data")
    Path("downloads/set").mkdir(parents=True)  # downloaded before
    assert resolved(configs=configs).values["data.path"].value == "downloads/set"


@pytest.mark.parametrize("folder", ["/srv", "~/.local", "..", ".", "torch", "downloads/../x"])
def test_a_file_cannot_choose_where_a_download_lands(here, folder):
    configs = config(f"download:\n  folder: {folder}\n  files: ['{URL}']\n")
    [error] = refused(FETCH, configs=configs)
    assert (error.key, error.fix) == (
        "download.folder",
        f"--set download.folder={Path(folder).expanduser()}",
    )
    assert resolved(FETCH, f"download.folder={folder}", configs=configs)
    configs = config(f"download:\n  folder: downloads/mine\n  files: ['{URL}']\n")
    assert resolved(FETCH, configs=configs)


def test_a_link_is_no_place_for_a_download(here):
    Path("code").mkdir()
    Path("downloads").symlink_to("code")
    assert [error.key for error in refused(FETCH, f"download.files=[{URL}]")] == ["download.folder"]


def test_only_the_command_line_allows_variables(here):
    run = resolved(FETCH, f"download.files=[{URL}]", "download.variables=[ONE, TWO]")
    assert run.settings.download.variables == ["ONE", "TWO"]
    assert kept_values(run.values)["download.variables"] == []
    (here / "c.yaml").write_text("download:\n  variables: [ONE]\n")
    [found] = refused(configs=[here / "c.yaml"])
    assert (found.key, found.where) == ("download.variables", f"{here}/c.yaml:2 download.variables")
    run = resolved("download.variables=TWO", configs=[here / "c.yaml"])
    assert run.settings.download.variables == ["TWO"]


def test_continual_learning_watches_the_folder_of_its_download(here):
    archive, text = f"download.files=[{URL}]", "download.files=[https://example.org/a.csv]"
    for sets, options, data in (
        ([archive], {}, "downloads/set"),
        ([text], {}, "downloads"),
        ([text, "download.folder=mine"], {}, "mine"),
        ([archive], {"data": "downloads/set/part"}, "downloads/set/part"),
    ):
        assert resolved(ON, FETCH, *sets, **options).values["data.path"].value == data


def test_files_that_are_not_downloaded_warn(here):
    files = config(f"download:\n  files: [{URL}]\n")
    [warning] = resolved(configs=files).warnings
    assert (warning.where, warning.fix) == ("mine.yaml:2 download.files", "--download-data")
    assert resolved(configs=files, data="embedded:python").warnings == []


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
PLACES = (
    "[0].url",
    "[1].sha256",
    "[2].sha265",
    "[3].url",
    "[3].sha256",
    "[4]",
    "[5].name",
    "[5].unpack",
    "[5].size",
)


def test_each_wrong_file_is_reported_with_its_line(here):
    errors = refused(configs=config(WRONG))
    assert [error.where for error in errors] == [
        f"mine.yaml:2 download.files{place}" for place in PLACES
    ]
    assert errors[2].did_you_mean == "sha256"


def test_files_without_a_path_of_their_own_are_refused(here):
    other = "https://example.org/other/set.zip"
    assert [error.key for error in refused(FETCH)] == ["download.fetch"]  # none at all
    for files in (
        "https://example.org/",
        f"{URL}, {other}",
        "https://example.org/a.zip, https://example.org/A.tar.xz",
    ):
        assert refused(FETCH, f"download.files=[{files}]")[0].key == "download.files"


def test_no_secret_reaches_settings_origins_and_messages(here):
    secret = "https://ann:hidden@example.org/set.zip?token=hidden"
    found = resolved(FETCH, f"download.files=[{secret}]", configs=config("train: {seed: 1}"))
    for text in (settings_text.render_settings(found), settings_text.render_origins(found)):
        assert "https://***@example.org/set.zip?token=***" in text and "hidden" not in text
    assert found.settings.download.files[0].url.unredacted == secret
    wrong = (f"download.filse=[{secret}]", f"download.files=[{{url: '{secret}', x: 1}}]")
    found = refused(*wrong)
    assert "hidden" not in render(found) + str(as_json(found))


def test_the_end_of_a_url_becomes_a_safe_name_and_no_other_is_accepted():
    for url_end, name in (
        ("data.zip", "data.zip"),
        ('a/b\\c:"d"?.zip', "a-b-c-d-.zip"),
        ("..", ""),
        (".hidden", "hidden"),
        ("x" * 300 + ".tar.gz", "x" * 193 + ".tar.gz"),
        ("データ.zip", "データ.zip"),
    ):
        assert safe_name(url_end) == name
    for name in (
        "",
        "a/b",
        "a\\b",
        "..",
        ".a",
        "-a",
        "a.",
        "a ",
        "a:b",
        "\x07",
        "x" * 201,
        "デ" * 70,
    ):
        with pytest.raises(ValueError, match="name"):
            File.model_validate({"url": URL, "name": name})
    for name in ("a b.tar.gz", "データ", "a-b_c.1"):
        assert File.model_validate({"url": URL, "name": name}).name == name
