"""One page tells all that was found, holds its pictures, and needs no network and no script."""

import re
from html.parser import HTMLParser

import pytest

from launcher.data_check import page
from launcher.data_check.findings import Findings
from models.base import Picture

PNG = b"\x89PNG\r\n\x1a\n not really"
FOUND = Findings(
    path="<notes> & more",
    model="language:tiny",
    format="plain text",
    facts={"groups": {"train": 12345, "val": 2}, "rate_hz": 0.1, "left_out": ["a", "b"], "x": None},
    shared_groups=[],
    sample={"input": "[1, 8] int64"},
    pictures=[Picture("page one", 'a "page" of it', PNG)],
)


class Outline(HTMLParser):
    """Opens and closes; keeps what a reader of the page meets."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html():
    return page.render(FOUND)


def test_what_is_opened_is_closed_and_nothing_comes_from_elsewhere(html):
    outline = Outline(html)
    assert outline.open == []
    assert not {"script", "link", "iframe"} & set(outline.seen)
    sources = [a["src"] for _, a in outline.attributes if "src" in a]
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?:|url\(|@import", html)


def test_names_of_the_person_are_text_and_never_markup(html):
    assert "&lt;notes&gt; &amp; more" in html
    assert "<notes>" not in html
    (image,) = [a for tag, a in Outline(html).attributes if tag == "img"]
    assert image["alt"] == 'a "page" of it'


def test_it_can_be_heard_and_read_in_the_dark(html):
    outline = Outline(html)
    assert dict(outline.attributes)["html"] == {"lang": "en"}
    assert {"main", "h1", "caption", "figcaption", "title"} <= set(outline.seen)
    headers = [a for tag, a in outline.attributes if tag == "th"]
    assert headers and all(a == {"scope": "row"} for a in headers)
    assert "prefers-color-scheme: dark" in html
    assert "color-scheme: light dark" in html


def test_facts_are_lines_that_a_person_reads():
    assert page.rows(FOUND.facts) == [
        ("groups", "train 12,345, val 2"),
        ("rate hz", "0.1"),
        ("left out", "a; b"),
        ("x", "none"),
    ]
    assert page.text({"is": True, "not": False}) == "is yes, not no"
    assert page.text({"train": {"a": 1, "b": {}}, "val": 2}) == "train (a 1, b none), val 2"


@pytest.mark.parametrize(
    ("shared", "said", "look"),
    [
        ([], "none: no group is in two splits", "good"),
        (["a", "b"], "2 groups are in two splits: a; b", "bad"),
        (None, "not known: the task keeps no groups", "quiet"),
    ],
)
def test_overlap_is_told_as_it_is(shared, said, look):
    found = Findings("x", "y", None, {}, shared, {}, [])
    assert page.overlap(found) == said
    assert f'<p class="{look}"><strong>Overlap:</strong> {said}' in page.render(found)


def test_the_pictures_of_a_page_are_known_by_their_names(html):
    assert page.files_of(html) == ["page-one"]
    assert page.files_of('<figure id="mine">') == []  # not a page of ours
