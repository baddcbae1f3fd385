"""A URL is shown without its secrets, and used with them."""

import copy
import json
from pathlib import Path

import pytest

from gearshift.launcher.base.redaction import Url, expand_variables, redact, redact_variables


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
        ("https://h/a?api_key=${KEY}", "https://h/a?api_key=${KEY}"),
        (
            "[https://a:b@h/x, {url: 'https://c:d@h/y?sig=e'}]",
            "[https://***@h/x, {url: 'https://***@h/y?sig=***'}]",
        ),
    ):
        assert redact(text) == shown == redact(shown)
    environ = {"HF_TOKEN": "hf_0123456789", "MY_PASSWORD": "true", "HOME": "/home/user"}
    text = redact_variables("hf_0123456789 true /home/user", environ)
    assert text == "[HF_TOKEN] true /home/user"


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
