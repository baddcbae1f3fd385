"""The page shows all findings in one file, without network or script."""

import re
from html.parser import HTMLParser

import pytest

from gearshift.launcher.report import data_check
from gearshift.launcher.report.data_check import Findings
from gearshift.models.base import Picture, SamplePart

PNG = b"\x89PNG\r\n\x1a\n not really"
FOUND = Findings(
    path="<notes> & more",
    model="language:tiny",
    format="plain text",
    facts={"groups": {"train": 12345, "val": 2}, "rate_hz": 0.1, "left_out": ["a", "b"], "x": None},
    overlapping_groups=[],
    sample={"input": "[1, 8] int64"},
    text=[SamplePart("User: <a>\nAssistant: ", in_loss=False), SamplePart("b" * 700, in_loss=True)],
    pictures=[Picture("page one", 'a "page" of it', PNG)],
)


class Outline(HTMLParser):
    """The tags of a page, and those left open."""

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
    return data_check.render(FOUND).decode()


def test_the_page_is_well_formed_and_loads_nothing(html):
    outline = Outline(html)
    assert outline.open == []
    assert not {"script", "link", "iframe"} & set(outline.seen)
    sources = [a["src"] for _, a in outline.attributes if "src" in a]
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?:|url\(|@import", html)


def test_a_sample_shows_what_counts_in_the_loss_and_names_are_escaped(html):
    assert "&lt;notes&gt; &amp; more" in html and "<notes>" not in html
    (image,) = [a for tag, a in Outline(html).attributes if tag == "img"]
    assert image["alt"] == 'a "page" of it'
    assert '<tr><th scope="row">given</th><td>User: &lt;a&gt;\nAssistant: </td></tr>' in html
    assert f'<tr><th scope="row">learned</th><td>{"b" * data_check.SHOWN}…</td></tr>' in html
