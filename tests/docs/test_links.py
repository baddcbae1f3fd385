"""Every link and file of README and docs exists, and every page can be reached."""

from __future__ import annotations

import re

from tests.docs.pages import PATHS, ROOT, Page, read

PAGES = [read(path) for path in PATHS]
FILE = re.compile(r"`((?:launcher|training|engines|models|slurm|ds_configs)/[a-z0-9_./-]+)`")


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


def test_every_file_of_the_tree_that_a_page_names_exists():
    named = [(page.name, name) for page in PAGES for name in FILE.findall(page.text)]
    assert [found for found in named if not (ROOT / found[1]).exists()] == []


def test_every_page_is_linked_from_readme():
    readme = read(ROOT / "README.md")
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in readme.links}
    assert [p.name for p in PAGES if p.path != readme.path and p.path not in linked] == []
