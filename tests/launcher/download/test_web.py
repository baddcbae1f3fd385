"""Redirects stay on http and https, and never leave https."""

import pytest
import requests

from launcher.base.diagnostics import SettingsError
from launcher.download.web import WebSource


def redirect(url, location):
    """The target of a redirect of `url`."""
    source = WebSource(url, "https://shown", 1.0)
    response = requests.Response()
    response.status_code, response.url = 302, url
    response.headers["Location"] = location
    return source.get_redirect_target(response)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://h/a/b", "c"),
        ("http://h/a", "https://h/b"),
        ("http://h/a", "//other/b"),
        ("https://ann:p@h/a", "/b"),
        ("https://ann:p@h/a", "https://h.example/b"),
    ],
)
def test_a_redirect_to_the_web_is_followed(url, location):
    assert redirect(url, location) == location


def test_a_redirect_from_https_to_http_is_refused():
    with pytest.raises(SettingsError) as error:
        redirect("https://ann:hidden@h/a", "http://h/b")
    assert "the server redirects from https to http" in str(error.value)
    assert "hidden" not in str(error.value)
