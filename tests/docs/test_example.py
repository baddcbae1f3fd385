"""The example of a task that a page shows is the one that lies beside it and is tested."""

from tests.docs.pages import ROOT, read


def test_the_page_shows_the_example_as_it_is():
    text = (ROOT / "docs" / "examples" / "images.py").read_text(encoding="utf-8")
    page = read(ROOT / "docs" / "own-models.md")
    assert [block.text for block in page.blocks if block.language == "python"] == [text]
