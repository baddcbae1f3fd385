"""Every link of README and docs has a target, and every page can be reached."""

from __future__ import annotations

from tests.docs.pages import PATHS, ROOT, Page, read

PAGES = [read(path) for path in PATHS]


def broken_links(page: Page) -> list[str]:
    """Relative links without a file or without the heading they name."""
    diagnostics = []
    for link in page.links:
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.path.parent / file).resolve() if file else page.path
        if not target.exists() or (anchor and anchor not in read(target).anchors):
            diagnostics.append(link)
    return diagnostics


def test_every_link_has_a_target():
    assert {page.name: broken for page in PAGES if (broken := broken_links(page))} == {}


def test_every_page_is_linked_from_readme():
    readme = read(ROOT / "README.md")
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in readme.links}
    assert [p.name for p in PAGES if p.path != readme.path and p.path not in linked] == []


def test_a_broken_link_is_found_and_a_valid_one_accepted(tmp_path):
    (tmp_path / "other.md").write_text("# There\n## A long one: MFU\n")
    links = ["missing.md", "#no-such-heading", "other.md#here", "other.md#a-long-one-mfu", "#here"]
    text = "# Here\n" + " ".join(f"[a]({link})" for link in links)
    (tmp_path / "page.md").write_text(text)
    assert broken_links(read(tmp_path / "page.md")) == links[:3]
