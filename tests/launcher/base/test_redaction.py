"""A URL is shown without its secrets, and used with them."""

import copy
import json
import random
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import main
from gearshift.launcher.base.diagnostics import SettingsError, as_json, render
from gearshift.launcher.base.redaction import (
    Url,
    expand_variables,
    redact,
    redact_values,
    redact_variables,
)
from gearshift.launcher.run_folder import run_folder
from tests.launcher.given import resolved


def test_secrets_are_redacted():
    for text, shown in (
        ("https://h/a.zip", "https://h/a.zip"),
        ("https://ann@h/a.zip", "https://***@h/a.zip"),
        ("https://ann:p@ss@h:81/a.zip", "https://***@h:81/a.zip"),
        ("https://${USER}:${PASS}@h/a", "https://${USER}:${PASS}@h/a"),
        ("https://ann:${PASS}@h/a", "https://***@h/a"),
        (str(Path("s3://ann:p@ss@h/a").absolute()), f"{Path.cwd()}/s3:/***@h/a"),
        ("https://h/a?id=7&token=abc&x=1", "https://h/a?id=7&token=***&x=1"),
        ("https://h/a?X-Amz-Signature=abc", "https://h/a?X-Amz-Signature=***"),
        ("https://h/a?token=a,b&pass=c", "https://h/a?token=***&pass=***"),
        ("https://h/a#token=abc", "https://h/a#token=***"),
        ("https://ann:p/s?s@h/a", "https://***@h/a"),
        ("https://h:81/a@1.0", "https://h:81/a@1.0"),
        ("['https://h/a?token=${KEY}']", "['https://h/a?token=${KEY}']"),
        ("https://h/a?api_key=${KEY}", "https://h/a?api_key=${KEY}"),
        (
            "[https://a:b@h/x, {url: 'https://c:d@h/y?sig=e'}]",
            "[https://***@h/x, {url: 'https://***@h/y?sig=***",
        ),
    ):
        assert redact(text) == shown == redact(shown)
    environ = {"HF_TOKEN": "hf_0123456789", "MY_PASSWORD": "true", "HOME": "/home/user"}
    text = redact_variables("hf_0123456789 true /home/user", environ)
    assert text == "[HF_TOKEN] true /home/user"


def secrets(count):
    """Random texts with letters that an encoding writes otherwise, and marks that it leaves."""
    draws = random.Random(0)
    for _ in range(count):
        odd = "".join(draws.choices("\"'\\äß家😀,;:!()[]{}*%$~^|<>=`", k=6))
        yield f"{MARKS[0]}{odd[:3]}{MARKS[1]}{odd[3:]}{MARKS[2]}"


MARKS = ("Zq7", "Xw8", "Kv9")
URLS = (
    "https://ann:{}@example.org/a.zip",
    "https://{}@example.org/a.zip",
    "https://example.org/a.zip?token={}",
    "https://example.org/a.zip?id=7&pass={}&x=1",
    "https://example.org/a.zip?id=7&password={}#a",
    "https://example.org/a.zip#token={}",
)
KEYS = ("download.files", "data.path", "model.tokenizer", "optim.lr", "track", "no.such.key")


def urls_with_secrets():
    """Each setting that may hold a URL, with its value."""
    for number, secret in enumerate(secrets(24)):
        url = URLS[number % len(URLS)].format(secret)
        for key in KEYS:
            value = [url] if key == "download.files" else url
            yield key, value


def leaks(text):
    return [mark for mark in MARKS if mark in text]


def test_no_secret_of_a_setting_is_saved_or_in_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = 0
    for number, (key, value) in enumerate(urls_with_secrets()):
        text = json.dumps(value, ensure_ascii=bool(number % 2))
        sets = [f"{key}={text}"]
        configs = []
        if number % 4 >= 2:
            file = tmp_path / "mine.yaml"
            file.write_text(f"{key}: {text}", encoding="utf-8")
            sets, configs = [], [file]
        try:
            run = resolved(*sets, configs=configs)
        except SettingsError as error:
            errors = error.diagnostics
            assert not leaks(render(errors) + json.dumps(as_json(errors), ensure_ascii=False))
            continue
        folder = run_folder.create(run, tmp_path / f"run-{number}", "a").path
        for path in filter(Path.is_file, folder.iterdir()):
            assert not leaks(path.read_text("utf-8")), path
        saved += 1
    assert saved >= 10


def test_no_command_prints_a_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, secret in enumerate(secrets(3)):
        text = json.dumps([URLS[2 * number].format(secret)], ensure_ascii=False)
        (tmp_path / "mine.yaml").write_text(f"download: {{files: {text}}}", encoding="utf-8")
        argument = f"download.files={text}"
        for words in (
            ["explain", "download.files", "--set", argument],
            ["explain", "download.files", "--json", "--config", "mine.yaml"],
            ["--dry-run", "--json", "--set", argument],
            ["--dry-run", "--config", "mine.yaml", "--download-data"],
            ["submit", "--dry-run", "--json", "--set", argument, "--out", "runs/a"],
            ["submit", "--dry-run", "--config", "mine.yaml", "--out", "runs/b"],
            ["list", argument],
        ):
            main(words)
            printed = capsys.readouterr()
            assert not leaks(printed.out + printed.err), words


def test_a_secret_of_the_environment_is_found_however_it_is_written():
    for secret in secrets(20):
        for written in (secret, json.dumps(secret), json.dumps({secret: 1}), repr([secret])):
            text = redact_variables(f"error: {written}", {"MY_TOKEN": secret})
            assert not leaks(text) and "[MY_TOKEN]" in text
    nested = {"a": [{"https://ann:b@h/c": 1}], "d": 2.5, 3: None}
    assert redact_values(nested) == {"a": [{"https://***@h/c": 1}], "d": 2.5, 3: None}


def test_a_url_is_printed_saved_and_compared_without_its_secret():
    url = Url("https://ann:hidden@h/a")
    assert url == "https://***@h/a" and url.unredacted == "https://ann:hidden@h/a"
    for text in (str(url), repr(url), f"{url}", json.dumps(url), str(copy.deepcopy([url]))):
        assert "hidden" not in text
    assert copy.deepcopy(url).unredacted == Url(url).unredacted == url.unredacted


def test_variables_are_substituted():
    assert (
        expand_variables("https://${A}:${B_2}@h/$C", {"A": "x", "B_2": "y"}) == "https://x:y@h/$C"
    )
    with pytest.raises(KeyError, match="A"):
        expand_variables("https://${A}@h/", {})
