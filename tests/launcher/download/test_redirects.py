"""Redirects stay on the web, stay encrypted, and take no password elsewhere."""

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.download.redirects import followed


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://h/a/b", "c", "https://h/a/c"),
        ("http://h/a", "https://h/b", "https://h/b"),
        ("http://h/a", "//other/b", "http://other/b"),
        ("https://ann:p@h/a", "/b", "https://ann:p@h/b"),
        ("https://ann:p@h/a", "https://ben:q@h/b", "https://ben:q@h/b"),
        ("https://ann:p@h/a", "https://h:444/b", "https://h:444/b"),
        ("https://ann:p@h/a", "https://h.example/b", "https://h.example/b"),
        ("http://ann:p@h/a", "https://h/b", "https://h/b"),
    ],
)
def test_where_a_redirect_leads(url, location, target):
    assert followed(url, location, "shown") == target


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://h/b", "the server redirects from https to http, at h"),
        ("file:///etc/passwd", "redirects to what is no web address: file:"),
        ("data:,x", "redirects to what is no web address: data:"),
        ("https://[::1/b", "redirects to what is no web address"),
    ],
)
def test_where_it_must_not(location, said):
    with pytest.raises(SettingsError) as wrong:
        followed("https://ann:hidden@h/a", location, "https://h/a")
    assert said in str(wrong.value) and "hidden" not in str(wrong.value)
